//! The disk of all agents: each assignment is written as the agent writes it, by threads that may block, and the same is
//! done without anybody else to tell what the disk alone costs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Instant;

use plumb_agent::parts::Keeper;
use plumb_dispatch::agent::Held;
use plumb_dispatch::hands::WrittenOrders;
use tokio::sync::oneshot;

use super::figures::Figures;

/// How many write at once. They wait for the disk nearly all the time, and a file system makes many waiters durable with
/// one flush.
const THREADS: usize = 64;

/// As far as a thread can step back.
const LEAST_PRIORITY: i32 = 19;

type Done = oneshot::Sender<std::io::Result<()>>;

struct Job {
    folder: PathBuf,
    what: What,
    done: Done,
}

/// What an agent keeps.
enum What {
    Held(Box<Held>),
    Orders(Arc<WrittenOrders>),
}

/// The way to the threads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Disk {
    jobs: mpsc::Sender<Job>,
    /// One assignment, as a sample for [`Disk::bare`].
    sample: Arc<Mutex<Option<Held>>>,
}

impl Disk {
    /// Starts the threads. They end with the process.
    pub fn start(figures: Arc<Figures>) -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..THREADS {
            let (queue, figures) = (queue.clone(), figures.clone());
            std::thread::spawn(move || {
                // The machines of a real fleet have processors of their own: what writing costs one of them keeps no other
                // from hearing. Without the right to it everything is measured together.
                let _ = rustix::process::setpriority_process(None, LEAST_PRIORITY);
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    let keeper = Keeper::of(&job.folder);
                    let result = match &job.what {
                        What::Held(held) => keeper.save_held(held),
                        What::Orders(orders) => keeper.save_orders(orders),
                    };
                    match (&result, job.what) {
                        (Ok(()), What::Held(_)) => figures.durable(),
                        (Ok(()), What::Orders(_)) => {}
                        (Err(_), _) => figures.refused(),
                    }
                    // An agent that is gone needs no answer.
                    let _ = job.done.send(result);
                }
            });
        }
        Self {
            jobs,
            sample: Arc::default(),
        }
    }

    /// Writes an assignment; the answer says when it is durable.
    pub fn save(&self, folder: PathBuf, held: Held) -> oneshot::Receiver<std::io::Result<()>> {
        *self.sample.lock().unwrap_or_else(PoisonError::into_inner) = Some(held.clone());
        self.write(folder, What::Held(Box::new(held)))
    }

    /// Writes orders by hand; the answer says when they are durable.
    pub fn save_orders(
        &self,
        folder: PathBuf,
        orders: Arc<WrittenOrders>,
    ) -> oneshot::Receiver<std::io::Result<()>> {
        self.write(folder, What::Orders(orders))
    }

    fn write(&self, folder: PathBuf, what: What) -> oneshot::Receiver<std::io::Result<()>> {
        let (done, answer) = oneshot::channel();
        // Without threads the answer says that it is gone.
        let _ = self.jobs.send(Job { folder, what, done });
        answer
    }

    /// Writes the newest assignment `count` times, each into a folder of its own that holds one already, by the same
    /// threads: how many milliseconds that takes.
    pub fn bare(&self, folder: &Path, count: usize) -> Result<f64, String> {
        let sample = self
            .sample
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or("nothing was assigned yet")?;
        let mut took = 0.0;
        for _ in 0..2 {
            let began = Instant::now();
            let answers: Vec<_> = (0..count)
                .map(|n| self.save(folder.join(n.to_string()), sample.clone()))
                .collect();
            for answer in answers {
                answer
                    .blocking_recv()
                    .map_err(|e| e.to_string())?
                    .map_err(|e| e.to_string())?;
            }
            took = began.elapsed().as_secs_f64() * 1e3;
        }
        Ok(took)
    }
}
