//! Slab: things that wait for an answer, found by a number that is never mistaken for another.
//!
//! A key holds an index and a generation, so that a late answer to something finished finds nothing.
//! Generations start from a number that differs from life to life of the node, so that an answer
//! owed to a former life finds nothing either.

use ring::Incarnation;

/// Names something in a [`Slab`]. Fits in 60 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(u64);

impl Key {
    const INDEX_BITS: u32 = 28;

    const fn new(index: usize, generation: u32) -> Self {
        Self(((generation as u64) << Self::INDEX_BITS) | index as u64)
    }

    const fn index(self) -> usize {
        (self.0 & ((1 << Self::INDEX_BITS) - 1)) as usize
    }

    const fn generation(self) -> u32 {
        (self.0 >> Self::INDEX_BITS) as u32
    }
}

/// What a token of an effect or a message refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A request in flight here.
    Job(Key),
    /// A peer's request that waits for our disk.
    Served(Key),
    /// A part of a slot's state that is being joined.
    Join(Key),
    /// A pull that we serve.
    Pull(Key),
    /// Nobody waits for the answer.
    Nobody,
}

impl Token {
    /// As the number that travels.
    pub(crate) const fn to_u64(self) -> u64 {
        match self {
            Self::Nobody => 0,
            Self::Job(k) => (1 << 60) | k.0,
            Self::Served(k) => (2 << 60) | k.0,
            Self::Join(k) => (3 << 60) | k.0,
            Self::Pull(k) => (4 << 60) | k.0,
        }
    }

    /// The inverse of [`Token::to_u64`]; a number that we never gave is nobody's.
    pub(crate) const fn from_u64(raw: u64) -> Self {
        let key = Key(raw & ((1 << 60) - 1));
        match raw >> 60 {
            1 => Self::Job(key),
            2 => Self::Served(key),
            3 => Self::Join(key),
            4 => Self::Pull(key),
            _ => Self::Nobody,
        }
    }
}

#[derive(Debug)]
struct Cell<T> {
    generation: u32,
    thing: Option<T>,
}

/// Things by key.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    cells: Vec<Cell<T>>,
    free: Vec<usize>,
    len: usize,
    first_generation: u32,
}

impl<T> Slab<T> {
    /// An empty slab of a node in this life.
    pub(crate) const fn new(life: Incarnation) -> Self {
        let first_generation = life.0.wrapping_mul(0x9e37_79b9);
        Self { cells: Vec::new(), free: Vec::new(), len: 0, first_generation }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn insert(&mut self, thing: T) -> Key {
        self.len += 1;
        if let Some(index) = self.free.pop() {
            let cell = &mut self.cells[index];
            cell.thing = Some(thing);
            return Key::new(index, cell.generation);
        }
        let generation = self.first_generation;
        self.cells.push(Cell { generation, thing: Some(thing) });
        Key::new(self.cells.len() - 1, generation)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let cell = self.cells.get_mut(key.index())?;
        if cell.generation != key.generation() {
            return None;
        }
        cell.thing.as_mut()
    }

    /// Every thing that is not taken out.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.cells.iter().filter_map(|cell| cell.thing.as_ref())
    }

    /// Takes a thing out for a while; [`Slab::put_back`] or [`Slab::forget`] must follow.
    pub(crate) fn take(&mut self, key: Key) -> Option<T> {
        let cell = self.cells.get_mut(key.index())?;
        if cell.generation != key.generation() {
            return None;
        }
        cell.thing.take()
    }

    pub(crate) fn put_back(&mut self, key: Key, thing: T) {
        self.cells[key.index()].thing = Some(thing);
    }

    /// The thing taken out is gone for good.
    pub(crate) fn forget(&mut self, key: Key) {
        let cell = &mut self.cells[key.index()];
        cell.generation = cell.generation.wrapping_add(1);
        cell.thing = None;
        self.free.push(key.index());
        self.len -= 1;
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let thing = self.take(key)?;
        self.forget(key);
        Some(thing)
    }

    /// How many places there are; each may have a key.
    pub(crate) const fn places(&self) -> usize {
        self.cells.len()
    }

    /// The key of what is at a place.
    pub(crate) fn key_at(&self, place: usize) -> Option<Key> {
        let cell = self.cells.get(place)?;
        cell.thing.is_some().then(|| Key::new(place, cell.generation))
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        let present = |(index, cell): (usize, &Cell<T>)| {
            cell.thing.is_some().then(|| Key::new(index, cell.generation))
        };
        self.cells.iter().enumerate().filter_map(present).collect()
    }
}
