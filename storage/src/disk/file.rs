//! FileDisk: a directory of the operating system.

#[cfg(target_os = "linux")]
use super::mapped::Mapped;
use super::{Disk, DiskFile};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::sync::OnceLock;

/// A real directory. Positional IO; `sync` is fdatasync.
#[derive(Debug)]
pub struct FileDisk {
    directory: PathBuf,
}

impl FileDisk {
    /// The directory at `path`, made if it does not exist. That it exists survives a power loss when
    /// this returns.
    ///
    /// # Errors
    /// When it cannot be made, or its parent cannot be synced.
    pub fn new(path: impl AsRef<Path>) -> io::Result<Self> {
        make_directory(path.as_ref(), &|parent| File::open(parent)?.sync_all())?;
        Ok(Self { directory: path.as_ref().to_path_buf() })
    }
}

/// Makes the directory `path` and those above it that are missing. `sync` is told of each directory that
/// got a new one, the highest first: without it a power loss takes the new one and all that is in it. Where
/// that fails the new one is removed again, or the next try would take it for one that is there to stay.
fn make_directory(path: &Path, sync: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    make_directory(parent, sync)?;
    let made = match fs::create_dir(path) {
        // Somebody else made it meanwhile.
        Err(_) if path.is_dir() => false,
        made => made.map(|()| true)?,
    };
    let synced = sync(if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    synced.map_err(|e| match made.then(|| fs::remove_dir(path)) {
        Some(Err(stays)) => {
            let what = format!("{e}; remove {} before the next try", path.display());
            io::Error::new(e.kind(), format!("{what}, it could not be removed: {stays}"))
        }
        _ => e,
    })
}

impl Disk for FileDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true);
        Ok(OpenFile::shared(file.open(self.directory.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.directory.join(name);
        let mut options = OpenOptions::new();
        match open_quietly(options.read(true).write(true), &path) {
            // Who only reads it, as a table, wants no more.
            Err(e) if is_read_only(&e) => {
                let file = open_quietly(options.write(false), &path)?;
                Ok(Arc::new(OpenFile { read_only: true, ..OpenFile::of(file) }))
            }
            file => Ok(OpenFile::shared(file?)),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.directory.join(from), self.directory.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.directory.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn free(&self) -> io::Result<Option<u64>> {
        let stat = rustix::fs::statvfs(&self.directory)?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    fn link_to(&self, name: &str, target: &dyn Disk) -> io::Result<()> {
        let here = self.directory.join(name);
        if let Some(there) = target.directory()
            && fs::hard_link(&here, there.join(name)).is_ok()
        {
            // Whoever wrote it may not have synced it.
            return File::open(here)?.sync_data();
        }
        super::copy_to(self.open(name)?.as_ref(), name, target)
    }

    fn directory(&self) -> Option<&Path> {
        Some(&self.directory)
    }

    fn random(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        fill_random(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false);
        let file = file.open(self.directory.join("LOCK"))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}

/// Fills `bytes` with what the operating system has of chance, at most 256.
fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::rand::{GetRandomFlags, getrandom};
        // So few come all at once.
        rustix::io::retry_on_intr(|| getrandom(&mut *bytes, GetRandomFlags::empty()))?;
        Ok(())
    }
    #[cfg(not(target_os = "linux"))]
    {
        use std::io::Read;
        File::open("/dev/urandom")?.read_exact(bytes)
    }
}

/// Opens a file without noting when it was read, where that may be.
fn open_quietly(options: &OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Nobody asks when a table was read last; only the file's owner may say so.
        let flags = i32::try_from(rustix::fs::OFlags::NOATIME.bits()).unwrap_or(0);
        match options.clone().custom_flags(flags).open(path) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            file => return file,
        }
    }
    options.open(path)
}

/// True when the file may well be there to be read.
fn is_read_only(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

struct OpenFile {
    file: File,
    /// It could not be opened for more.
    read_only: bool,
    /// Made by the first read that may go through memory.
    #[cfg(target_os = "linux")]
    mapped: OnceLock<Option<Mapped>>,
}

impl OpenFile {
    fn of(file: File) -> Self {
        Self {
            file,
            read_only: false,
            #[cfg(target_os = "linux")]
            mapped: OnceLock::new(),
        }
    }

    fn shared(file: File) -> Arc<dyn DiskFile> {
        Arc::new(Self::of(file))
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.read_only { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }
}

impl DiskFile for OpenFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    #[cfg(target_os = "linux")]
    fn read_settled(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self.mapped.get_or_init(|| Mapped::of(&self.file)) {
            Some(mapped) if mapped.read_at(&self.file, buffer, offset) => Ok(()),
            _ => self.read_at(buffer, offset),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.file.set_len(len)
    }

    #[cfg(target_os = "linux")]
    fn window(&self, bytes_max: u64) -> io::Result<Option<Box<dyn super::Window>>> {
        let mapping = super::window::Mapping::of(&self.file, bytes_max)?;
        Ok(mapping.map(|mapping| Box::new(mapping) as Box<dyn super::Window>))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn each_directory_that_got_a_new_one_is_synced_and_no_other() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let synced = RefCell::new(Vec::new());
        let sync = |parent: &Path| {
            synced.borrow_mut().push(parent.to_path_buf());
            Ok(())
        };
        make_directory(&root.join("a/b/c"), &sync).unwrap();
        assert_eq!(synced.take(), [root.to_path_buf(), root.join("a"), root.join("a/b")]);
        make_directory(&root.join("a/b/c"), &sync).unwrap();
        assert!(synced.take().is_empty(), "it is there");
        make_directory(&root.join("a/d/"), &sync).unwrap();
        assert_eq!(synced.take(), [root.join("a")]);
        fs::write(root.join("file"), b"").unwrap();
        let refused = make_directory(&root.join("file"), &sync);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let failing = |_: &Path| Err(io::Error::other("no"));
        assert!(make_directory(&root.join("e"), &failing).is_err());
        make_directory(&root.join("e"), &sync).unwrap();
        assert_eq!(synced.take(), [root.to_path_buf()], "what was not synced is not there");
        let failing_later = |parent: &Path| {
            sync(parent)?;
            if parent == root { Ok(()) } else { Err(io::Error::other("no")) }
        };
        assert!(make_directory(&root.join("h/i"), &failing_later).is_err());
        assert_eq!(synced.take(), [root.to_path_buf(), root.join("h")]);
        make_directory(&root.join("h/i"), &sync).unwrap();
        assert_eq!(synced.take(), [root.join("h")]);
        let filled = |parent: &Path| {
            fs::write(parent.join("j/file"), b"")?;
            Err(io::Error::other("no"))
        };
        let stays = make_directory(&root.join("j"), &filled).unwrap_err().to_string();
        let told = format!("no; remove {} before the next try", root.join("j").display());
        assert!(stays.starts_with(&told), "{stays}");
        FileDisk::new(root.join("f/g")).unwrap();
        assert!(root.join("f/g").is_dir());
    }
}
