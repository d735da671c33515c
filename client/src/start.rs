//! Start: what a program may ask of its [`Client`], each as a request that is sent when it is awaited.

use std::path::Path;

use bytes::Bytes;

use crate::client::Client;
use crate::context::ContextFile;
use crate::counter::Counter;
use crate::error::{ClientError, Told};
use crate::key::Key;
use crate::many::GetMany;
use crate::range::{DeleteRange, Range};
use crate::request::{Delete, Get, Put};
use crate::span::SortRange;
use crate::terms::Terms;
use crate::tls::Tls;

impl Client {
    /// Connects to the current cluster of a [file of contexts](crate::context), as `ringd demo` writes one beside
    /// its data.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the file, or a certificate that it names, is not what it should be;
    /// else as [`Client::connect`].
    pub async fn open(file: impl AsRef<Path>) -> Result<Self, ClientError> {
        let file = file.as_ref();
        let invalid = |told| ClientError::Invalid { told };
        let contexts = ContextFile::load(file).map_err(|e| invalid(e.told()))?;
        let cluster = contexts.choose(None, file).map_err(|e| invalid(e.told()))?;
        let tls = Tls::load(&cluster.tls_files()).map_err(|e| {
            let what = format!("the certificate that {} names cannot be used", file.display());
            invalid(Told::new(what, e.to_string(), "name the .pem and .key files of a client"))
        })?;
        Self::connect(cluster.nodes.clone(), tls).await
    }

    /// Reads a key.
    pub fn get(&self, key: impl Into<Key>) -> Get {
        Get { client: self.clone(), key: key.into(), terms: self.terms() }
    }

    /// Writes a key.
    pub fn put(&self, key: impl Into<Key>, value: impl Into<Bytes>) -> Put {
        let (client, key, value) = (self.clone(), key.into(), value.into());
        Put { client, key, value, context: None, ttl: None, terms: self.terms() }
    }

    /// Removes a key.
    pub fn delete(&self, key: impl Into<Key>) -> Delete {
        Delete { client: self.clone(), key: key.into(), context: None, terms: self.terms() }
    }

    /// Reads several keys at once: each from a node that holds it, all of one node in one request.
    pub fn get_many<K: Into<Key>>(&self, keys: impl IntoIterator<Item = K>) -> GetMany {
        let keys = keys.into_iter().map(Into::into).collect();
        GetMany { client: self.clone(), keys, terms: self.terms() }
    }

    /// A counter: additions of different writers all count, whichever nodes take them.
    pub fn counter(&self, key: impl Into<Key>) -> Counter {
        Counter { client: self.clone(), key: key.into() }
    }

    /// Reads the sort keys of a partition key in their order:
    /// `ring.range("inbox:42", "2026-01".."2026-02")`. A key that is the partition key alone, without
    /// a sort key, is not among them.
    pub fn range(&self, partition: impl AsRef<[u8]>, sort: impl SortRange) -> Range {
        Range::new(self, partition.as_ref(), sort.half_open())
    }

    /// Removes the sort keys of a partition key that lie in a range.
    pub fn delete_range(&self, partition: impl AsRef<[u8]>, sort: impl SortRange) -> DeleteRange {
        DeleteRange::new(self, partition.as_ref(), sort.half_open())
    }

    fn terms(&self) -> Terms {
        Terms::new(self.patience().request)
    }
}
