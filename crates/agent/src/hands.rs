//! Orders by hand on this machine's disk, with how far they have been carried out, in one file that is written whole.
//!
//! It decides nothing. One write is under way at a time, so that what was written last is what is there. A file that is
//! damaged is put aside as if there were none: the control plane sends the orders again. One of a newer version is an
//! error, since what it orders must not be undone by an agent that cannot read it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plumb_converge::hands::Progress;
use plumb_dispatch::hands::WrittenOrders;
use plumb_model::hands::OrdersError;
use plumb_model::{Hash, Orders};
use serde::{Deserialize, Serialize};

use crate::error::AgentError;
use crate::folder::replace;

/// The newest format of the file that this version reads, and the one that it writes.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    hash: Hash,
    progress: Progress,
}

/// What is written together.
#[derive(Debug, Clone)]
pub struct Page {
    /// The orders.
    pub orders: Arc<WrittenOrders>,
    /// How far they have been carried out.
    pub progress: Progress,
    /// The number of that progress, if it is that which moved; none if the orders are new.
    pub version: Option<u64>,
}

/// The file, and what waits to be written.
#[derive(Debug)]
pub struct Book {
    path: PathBuf,
    /// The orders that are on the disk.
    orders: Option<Arc<WrittenOrders>>,
    /// Orders that are to be written.
    pub new: Option<Arc<WrittenOrders>>,
    /// Progress that is to be written.
    pub moved: Option<(u64, Progress)>,
    writing: bool,
}

impl Book {
    /// Reads the file in an agent's data folder, with the progress that it holds.
    ///
    /// # Errors
    /// When a newer version has written it.
    pub fn open(data: &Path) -> Result<(Self, Progress), AgentError> {
        let path = path(data);
        let (orders, progress) = match read(&path) {
            Ok(Some((orders, progress))) => (Some(Arc::new(orders)), progress),
            Ok(None) => (None, Progress::default()),
            Err(Unread::Newer(why)) => return Err(AgentError::Damaged { path, why }),
            Err(Unread::Damaged(why)) => {
                tracing::error!(path = %path.display(), why, "the orders by hand are damaged; they are asked for again");
                (None, Progress::default())
            }
        };
        let book = Self {
            path,
            orders,
            new: None,
            moved: None,
            writing: false,
        };
        Ok((book, progress))
    }

    /// The orders that are on the disk.
    pub fn orders(&self) -> Option<&Arc<WrittenOrders>> {
        self.orders.as_ref()
    }

    /// What is to be written next, if anything is and nothing is being written; it is being written from then on.
    /// `with` is what the progress is with new orders.
    pub fn next(
        &mut self,
        with: impl FnOnce(&WrittenOrders) -> Progress,
    ) -> Option<(PathBuf, Page)> {
        if self.writing {
            return None;
        }
        let page = if let Some(orders) = self.new.take() {
            Page {
                progress: with(&orders),
                orders,
                version: None,
            }
        } else {
            // Without orders there is nothing to come on with.
            let orders = self.orders.clone()?;
            let (version, progress) = self.moved.take()?;
            Page {
                orders,
                progress,
                version: Some(version),
            }
        };
        self.writing = true;
        Some((self.path.clone(), page))
    }

    /// A write has ended.
    pub fn ended(&mut self, page: &Page, well: bool) {
        self.writing = false;
        match (well, page.version) {
            (true, _) => self.orders = Some(page.orders.clone()),
            // It is tried again with the next one, or when the agent next wakes.
            (false, Some(version)) if self.moved.is_none() => {
                self.moved = Some((version, page.progress.clone()));
            }
            (false, _) => {}
        }
    }
}

/// The file in an agent's folder.
pub fn path(data: &Path) -> PathBuf {
    data.join("hands")
}

/// Writes a page, durably. Blocks.
pub fn write(path: &Path, page: &Page) -> io::Result<()> {
    let head = Head {
        format: FORMAT,
        hash: page.orders.hash,
        progress: page.progress.clone(),
    };
    let mut bytes = serde_json::to_vec(&head)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&page.orders.bytes);
    replace(path, &bytes, 0o600)
}

enum Unread {
    Newer(String),
    Damaged(String),
}

fn read(path: &Path) -> Result<Option<(WrittenOrders, Progress)>, Unread> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let damaged = |e: &dyn std::fmt::Display| Unread::Damaged(e.to_string());
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(damaged(&e)),
    };
    let end = bytes.iter().position(|b| *b == b'\n');
    let end = end.ok_or_else(|| damaged(&"it has no first line"))?;
    let (head, body) = (&bytes[..end], &bytes[end + 1..]);
    let Format { format } = serde_json::from_slice(head).map_err(|e| damaged(&e))?;
    if format > FORMAT {
        let why = format!("it was written by a newer plumb (format {format}); upgrade plumb");
        return Err(Unread::Newer(why));
    }
    let head: Head = serde_json::from_slice(head).map_err(|e| damaged(&e))?;
    if Hash::of(body) != head.hash {
        return Err(damaged(&"its content is not what its hash says"));
    }
    let orders = Orders::parse(body).map_err(|error| match error {
        OrdersError::Newer(_) => Unread::Newer(error.to_string()),
        OrdersError::Unreadable(_) => damaged(&error),
    })?;
    let written = WrittenOrders {
        hash: head.hash,
        bytes: body.to_vec(),
        orders,
    };
    Ok(Some((written, head.progress)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_model::hands::{self, Hands};
    use plumb_model::{Lineage, MachineName, OrderNumber, WorkspaceName};

    fn orders(number: u64) -> Arc<WrittenOrders> {
        Arc::new(WrittenOrders::from(Orders {
            format: hands::FORMAT,
            lineage: Lineage::from_random([1; 16]),
            workspace: WorkspaceName::new("w").unwrap(),
            machine: MachineName::new("m").unwrap(),
            number: OrderNumber(number),
            hands: Hands::default(),
        }))
    }

    #[test]
    fn orders_read_back_one_write_at_a_time_and_a_damaged_file_counts_as_none() {
        let data = tempfile::tempdir().unwrap();
        let (mut book, _) = Book::open(data.path()).unwrap();
        assert!(book.orders().is_none());
        book.moved = Some((1, Progress::default()));
        assert!(book.next(|_| Progress::default()).is_none(), "no orders");
        book.new = Some(orders(4));
        let (path, page) = book.next(|_| Progress::default()).unwrap();
        book.new = Some(orders(5));
        assert!(
            book.next(|_| Progress::default()).is_none(),
            "one at a time"
        );
        write(&path, &page).unwrap();
        book.ended(&page, true);
        let number = |book: &Book| book.orders().map(|held| held.orders.number);
        assert_eq!(number(&book), Some(OrderNumber(4)));
        let again = Book::open(data.path()).unwrap().0;
        assert_eq!(number(&again), Some(OrderNumber(4)));

        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 4;
        bytes[last] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(number(&Book::open(data.path()).unwrap().0), None);
        std::fs::write(&path, "{\"format\":2}\n{}").unwrap();
        let newer = Book::open(data.path()).unwrap_err().to_string();
        assert!(newer.contains("newer plumb"), "{newer}");
    }
}
