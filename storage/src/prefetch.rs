//! Prefetch: asks for memory before it is needed, so that several waits become one.

#![allow(unsafe_code, reason = "the processor's instruction for it takes an address")]

/// Asks for the cache line at `place`, which will be read soon. Nothing but time depends on it.
#[inline]
pub(crate) fn prefetch<T>(place: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which reads nothing; every such processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = place;
}
