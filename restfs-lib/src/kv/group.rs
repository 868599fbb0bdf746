//! Many small write closures -> one transaction.

use super::transact::{MAX_TRIES, Watched, back_off};
use super::{Kv, KvError, KvWrite, Overlay};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

#[derive(Debug, Clone, Copy)]
pub struct GroupOptions {
    /// Writes that may wait; further callers wait for a place.
    pub queue: usize,
    /// Writes in one transaction.
    pub writes: usize,
    /// Pending bytes after which a transaction takes no further write.
    pub bytes: usize,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            queue: 1024,
            writes: 256,
            bytes: 16 * 1024 * 1024,
        }
    }
}

/// A thread that runs writes from many callers in shared transactions. A write that fails leaves no trace and disturbs
/// no other; when the shared commit fails, all of its writes are answered with that error. Dropped, it finishes what
/// is in its queue.
pub struct GroupCommit {
    /// `None` only while dropped.
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    worker: Option<JoinHandle<()>>,
}

impl GroupCommit {
    pub fn new(kv: Arc<dyn Kv>, options: GroupOptions) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(options.queue.max(1));
        let worker = std::thread::Builder::new()
            .name("group-commit".into())
            .spawn(move || Worker { kv, options, jobs }.run())?;
        Ok(Self {
            queue: Some(queue),
            worker: Some(worker),
        })
    }

    /// Blocks until the write is durable. Not for async code. The closure may run more than once.
    pub fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnMut(&mut dyn KvWrite) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<KvError> + Send + 'static,
    {
        let (job, answer) = job(work);
        self.queue().blocking_send(job).map_err(|_| gone())?;
        answer.blocking_recv().unwrap_or_else(|_| Err(gone().into()))
    }

    /// As [`Self::write`], for async code. A future that is dropped may leave its write done or not done.
    pub async fn write_async<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnMut(&mut dyn KvWrite) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<KvError> + Send + 'static,
    {
        let (job, answer) = job(work);
        self.queue().send(job).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone().into()))
    }

    fn queue(&self) -> &mpsc::Sender<Box<dyn Job>> {
        self.queue.as_ref().expect("taken only by drop")
    }
}

impl Drop for GroupCommit {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            tracing::error!("the group commit thread panicked");
        }
    }
}

fn gone() -> KvError {
    KvError::Io("the write was broken off by a panic, see the log".into())
}

/// A write of a caller, with its types forgotten.
trait Job: Send {
    /// Runs the work and keeps its outcome. Whether its writes are to be kept.
    fn run(&mut self, txn: &mut dyn KvWrite) -> bool;
    /// Tells the caller the outcome; when the work went well, with what became of the shared commit.
    fn answer(self: Box<Self>, commit: Result<(), KvError>);
}

struct Task<F, T, E> {
    work: F,
    outcome: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

fn job<T, E, F>(work: F) -> (Box<dyn Job>, oneshot::Receiver<Result<T, E>>)
where
    F: FnMut(&mut dyn KvWrite) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: From<KvError> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    (
        Box::new(Task {
            work,
            outcome: None,
            reply,
        }),
        answer,
    )
}

impl<F, T, E> Job for Task<F, T, E>
where
    F: FnMut(&mut dyn KvWrite) -> Result<T, E> + Send,
    T: Send,
    E: From<KvError> + Send,
{
    fn run(&mut self, txn: &mut dyn KvWrite) -> bool {
        // A panic leaves no outcome, so the caller gets no answer; the overlay is thrown away with its writes.
        self.outcome = catch_unwind(AssertUnwindSafe(|| (self.work)(txn))).ok();
        matches!(self.outcome, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, commit: Result<(), KvError>) {
        let result = match (self.outcome, commit) {
            (Some(Ok(value)), Ok(())) => Ok(value),
            (Some(Err(error)), _) => Err(error),
            // It may not even have been run.
            (_, Err(error)) => Err(error.into()),
            // It panicked: the caller sees that the answer never comes.
            (None, Ok(())) => return,
        };
        // A caller that has gone away does not want to know.
        let _ = self.reply.send(result);
    }
}

struct Worker {
    kv: Arc<dyn Kv>,
    options: GroupOptions,
    jobs: mpsc::Receiver<Box<dyn Job>>,
}

impl Worker {
    fn run(mut self) {
        while let Some(first) = self.jobs.blocking_recv() {
            let mut group = vec![first];
            let commit = self.commit(&mut group);
            for job in group {
                job.answer(commit.clone());
            }
        }
    }

    /// Runs the group, which grows by what waits in the queue, until it is committed or cannot be.
    fn commit(&mut self, group: &mut Vec<Box<dyn Job>>) -> Result<(), KvError> {
        let mut attempt = 1;
        loop {
            match self.attempt(group) {
                Err(KvError::Conflict) if attempt < MAX_TRIES => back_off(attempt),
                result => return result,
            }
            attempt += 1;
        }
    }

    fn attempt(&mut self, group: &mut Vec<Box<dyn Job>>) -> Result<(), KvError> {
        let kv = Arc::clone(&self.kv);
        let mut txn = kv.write()?;
        let mut bytes = 0;
        for job in group.iter_mut() {
            bytes += run_one(job.as_mut(), txn.as_mut())?;
        }
        while group.len() < self.options.writes
            && bytes < self.options.bytes
            && let Ok(mut job) = self.jobs.try_recv()
        {
            let ran = run_one(job.as_mut(), txn.as_mut());
            group.push(job);
            bytes += ran?;
        }
        txn.commit()
    }
}

/// Runs one write over the transaction; the bytes that it added.
fn run_one(job: &mut dyn Job, txn: &mut dyn KvWrite) -> Result<usize, KvError> {
    let mut watched = Watched::new(txn);
    let mut overlay = Overlay::new(&watched);
    let keep = job.run(&mut overlay);
    let writes = overlay.into_writes();
    if watched.conflict.get() {
        return Err(KvError::Conflict);
    }
    if !keep {
        return Ok(0);
    }
    let mut bytes = 0;
    for (key, value) in writes {
        bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        match value {
            Some(value) => watched.put(&key, &value)?,
            None => watched.delete(&key)?,
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::{KvRead, KvTransaction, MemoryKv, Pair};
    use super::*;
    use std::ops::Bound;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Counts commits, holds them up, and fails them when told to.
    #[derive(Default)]
    struct Probe {
        inner: MemoryKv,
        commits: AtomicU64,
        fail: AtomicU64,
        gate: Mutex<()>,
    }

    struct ProbeWrite<'a> {
        probe: &'a Probe,
        inner: Box<dyn KvTransaction + 'a>,
    }

    impl Kv for Probe {
        fn read(&self) -> Result<Box<dyn KvRead + '_>, KvError> {
            self.inner.read()
        }

        fn write(&self) -> Result<Box<dyn KvTransaction + '_>, KvError> {
            drop(self.gate.lock().unwrap());
            Ok(Box::new(ProbeWrite {
                probe: self,
                inner: self.inner.write()?,
            }))
        }
    }

    impl KvRead for ProbeWrite<'_> {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
            self.inner.get(key)
        }

        fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, limit: usize) -> Result<Vec<Pair>, KvError> {
            self.inner.scan(from, to, limit)
        }
    }

    impl KvWrite for ProbeWrite<'_> {
        fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
            self.inner.put(key, value)
        }

        fn delete(&mut self, key: &[u8]) -> Result<(), KvError> {
            self.inner.delete(key)
        }
    }

    impl KvTransaction for ProbeWrite<'_> {
        fn commit(self: Box<Self>) -> Result<(), KvError> {
            if self.probe.fail.load(Ordering::SeqCst) > 0 {
                self.probe.fail.fetch_sub(1, Ordering::SeqCst);
                return Err(KvError::Full("test".into()));
            }
            self.probe.commits.fetch_add(1, Ordering::SeqCst);
            self.inner.commit()
        }
    }

    type Call = Box<dyn FnOnce(&GroupCommit) + Send>;

    fn add(txn: &mut dyn KvWrite, amount: u64) -> Result<u64, KvError> {
        let old = txn
            .get(b"sum")?
            .map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
        txn.put(b"sum", &(old + amount).to_be_bytes())?;
        Ok(old)
    }

    /// Callers that are all in the queue before the worker gets its first transaction.
    fn with_held_up_worker(probe: &Arc<Probe>, group: &Arc<GroupCommit>, calls: Vec<Call>) {
        let gate = probe.gate.lock().unwrap();
        let mut threads = Vec::new();
        for call in calls {
            let group = Arc::clone(group);
            threads.push(std::thread::spawn(move || call(&group)));
        }
        let queue = group.queue();
        // One is with the worker, the others wait.
        while queue.max_capacity() - queue.capacity() + 1 < threads.len() {
            std::thread::yield_now();
        }
        drop(gate);
        for thread in threads {
            thread.join().unwrap();
        }
    }

    fn start() -> (Arc<Probe>, Arc<GroupCommit>) {
        let probe = Arc::new(Probe::default());
        let group = GroupCommit::new(Arc::clone(&probe) as Arc<dyn Kv>, GroupOptions::default()).unwrap();
        (probe, Arc::new(group))
    }

    #[test]
    fn waiting_writes_share_a_commit_and_see_each_other() {
        let (probe, group) = start();
        let calls = (0..20).map(|_| -> Call {
            Box::new(|group| {
                group.write(|txn| add(txn, 1)).unwrap();
            })
        });
        with_held_up_worker(&probe, &group, calls.collect());
        assert_eq!(group.write(|txn| add(txn, 0)), Ok(20));
        let commits = probe.commits.load(Ordering::SeqCst);
        assert!(commits <= 3, "{commits} commits");
    }

    #[test]
    fn a_failed_or_panicking_write_leaves_no_trace_and_spoils_no_other() {
        let (probe, group) = start();
        let calls: Vec<Call> = vec![
            Box::new(|group| assert!(group.write(|txn| add(txn, 1)).is_ok())),
            Box::new(|group| {
                let result = group.write(|txn| {
                    add(txn, 100)?;
                    Err::<(), _>(KvError::Io("mine".into()))
                });
                assert_eq!(result, Err(KvError::Io("mine".into())));
            }),
            Box::new(|group| {
                let result = group.write(|txn| -> Result<(), KvError> {
                    add(txn, 1000)?;
                    panic!("on purpose")
                });
                assert_eq!(result, Err(gone()));
            }),
            Box::new(|group| assert!(group.write(|txn| add(txn, 1)).is_ok())),
        ];
        with_held_up_worker(&probe, &group, calls);
        assert_eq!(group.write(|txn| add(txn, 0)), Ok(2));
    }

    #[test]
    fn a_failed_commit_is_answered_to_everybody_and_the_next_goes_through() {
        let (probe, group) = start();
        probe.fail.store(1, Ordering::SeqCst);
        let full = Arc::new(AtomicU64::new(0));
        let calls = (0..5).map(|_| -> Call {
            let full = Arc::clone(&full);
            Box::new(move |group| match group.write(|txn| add(txn, 1)) {
                Ok(_) => {}
                Err(KvError::Full(_)) => drop(full.fetch_add(1, Ordering::SeqCst)),
                Err(error) => panic!("{error}"),
            })
        });
        with_held_up_worker(&probe, &group, calls.collect());
        let failed = full.load(Ordering::SeqCst);
        assert!(failed >= 1);
        assert_eq!(group.write(|txn| add(txn, 0)), Ok(5 - failed));
    }

    #[test]
    fn a_rival_that_writes_in_between_makes_the_group_run_again() {
        let (probe, group) = start();
        let rival = Arc::clone(&probe);
        let mut raced = false;
        let old = group.write(move |txn| {
            let old = add(txn, 1)?;
            if !raced {
                raced = true;
                super::super::transact(&rival.inner, |txn| add(txn, 10))?;
            }
            Ok::<_, KvError>(old)
        });
        assert_eq!(old, Ok(10));
        assert_eq!(group.write(|txn| add(txn, 0)), Ok(11));
    }

    #[test]
    fn async_callers_are_answered_after_the_commit() {
        let (probe, group) = start();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let old = runtime.block_on(async { group.write_async(|txn| add(txn, 3)).await });
        assert_eq!(old, Ok(0));
        assert_eq!(
            probe.inner.read().unwrap().get(b"sum"),
            Ok(Some(3u64.to_be_bytes().to_vec()))
        );
    }

    #[test]
    fn a_dropped_group_commit_finishes_its_queue() {
        let (probe, group) = start();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let gate = probe.gate.lock().unwrap();
        runtime.block_on(async {
            let mut write = std::pin::pin!(group.write_async(|txn| add(txn, 3)));
            // Once polled it is in the queue.
            tokio::select! {
                biased;
                _ = &mut write => panic!("answered before the commit"),
                () = std::future::ready(()) => {}
            }
        });
        drop(gate);
        drop(group);
        assert_eq!(
            probe.inner.read().unwrap().get(b"sum"),
            Ok(Some(3u64.to_be_bytes().to_vec()))
        );
    }
}
