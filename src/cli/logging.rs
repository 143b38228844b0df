//! The log: one line an event on standard error, as text or JSON. A reader that does not read never holds us up.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::document::{Log, LogFormat, LogLevel};
use crate::limits::LOG_QUEUE;
use crate::telemetry::Telemetry;

/// Installs the log for this process. The writer thread ends with the process; [`Flush`] waits for its queue.
pub(super) fn install(log: &Log) -> io::Result<Flush> {
    let (sender, receiver) = sync_channel(LOG_QUEUE);
    let drops = Arc::new(Drops::default());
    let writer = QueueWriter { queue: sender.clone(), drops: Arc::clone(&drops) };
    let counted = Arc::clone(&drops);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&receiver, &counted.untold))?;
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let registry = tracing_subscriber::registry().with(level);
    let fmt = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false).with_target(false);
    let installed = match log.format {
        LogFormat::Text => registry.with(fmt).try_init(),
        LogFormat::Json => registry.with(fmt.json().flatten_event(true)).try_init(),
    };
    installed.map_err(io::Error::other)?;
    // The hook that is there by default writes to standard error itself, and waits for whoever does not read it.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    Ok(Flush { queue: sender, drops })
}

/// Lines that were dropped.
#[derive(Debug, Default)]
struct Drops {
    /// Those that the log does not tell of yet.
    untold: AtomicU64,
    /// Where they are counted, once there is a mirror.
    telemetry: OnceLock<Telemetry>,
}

impl Drops {
    fn one(&self) {
        self.untold.fetch_add(1, Ordering::Relaxed);
        if let Some(telemetry) = self.telemetry.get() {
            telemetry.log_dropped();
        }
    }
}

/// What the writer thread gets.
#[derive(Debug)]
enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Waits, bounded, until what was logged so far is written.
#[derive(Debug)]
pub(super) struct Flush {
    queue: SyncSender<Item>,
    drops: Arc<Drops>,
}

impl Flush {
    /// Counts lines that are dropped from now on there.
    pub(super) fn count_in(&self, telemetry: &Telemetry) {
        self.drops.telemetry.get_or_init(|| telemetry.clone());
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let (done, wait) = sync_channel(1);
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            // Nobody reads: then nobody misses the rest.
            let _done_or_given_up = wait.recv_timeout(FLUSH_MAX);
        }
    }
}

fn write_all(receiver: &Receiver<Item>, lost: &AtomicU64) {
    while let Ok(item) = receiver.recv() {
        let mut stderr = io::stderr().lock();
        match item {
            Item::Line(line) => {
                let missing = lost.swap(0, Ordering::Relaxed);
                if missing > 0 {
                    drop(writeln!(stderr, "{{\"level\":\"WARN\",\"message\":\"{missing} log lines were lost\"}}"));
                }
                drop(stderr.write_all(&line));
            }
            Item::Flush(done) => {
                drop(stderr.flush());
                let _whoever_asked_may_have_left = done.try_send(());
            }
        }
    }
}

/// Queues lines; when the queue is full they are counted and dropped.
#[derive(Debug, Clone)]
struct QueueWriter {
    queue: SyncSender<Item>,
    drops: Arc<Drops>,
}

impl<'a> MakeWriter<'a> for QueueWriter {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { bytes: Vec::new(), to: self.clone() }
    }
}

/// One event's text, sent when it is complete.
#[derive(Debug)]
struct Line {
    bytes: Vec<u8>,
    to: QueueWriter,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = one_line(&self.bytes);
        if let Err(TrySendError::Full(_)) = self.to.queue.try_send(Item::Line(line)) {
            self.to.drops.one();
        }
    }
}

/// One event is one line: what clients and upstreams send cannot begin another one or move a terminal's cursor.
fn one_line(bytes: &[u8]) -> Vec<u8> {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let mut line = Vec::with_capacity(bytes.len() + 1);
    for &byte in body {
        if byte.is_ascii_control() && byte != b'\t' {
            line.extend(format!("\\x{byte:02x}").bytes());
        } else {
            line.push(byte);
        }
    }
    line.push(b'\n');
    line
}

const FLUSH_MAX: std::time::Duration = std::time::Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        assert_eq!(one_line(b"a\r\nb\x1b[31mc\tz\n"), b"a\\x0d\\x0ab\\x1b[31mc\tz\n");
        assert_eq!(one_line("no newline, é".as_bytes()), "no newline, é\n".as_bytes());
    }

    #[test]
    fn f_12_a_full_queue_drops_lines_and_counts_them_without_waiting() {
        let (queue, receiver) = sync_channel(2);
        let writer = QueueWriter { queue, drops: Arc::default() };
        let telemetry = Telemetry::new(&[]);
        writer.drops.telemetry.set(telemetry.clone()).unwrap();
        for line in 0..5 {
            writeln!(writer.make_writer(), "{line}").unwrap();
        }
        assert_eq!(writer.drops.untold.load(Ordering::Relaxed), 3);
        assert!(telemetry.render().contains("\nsealgate_log_dropped_total 3\n"));
        assert_eq!(receiver.try_iter().count(), 2);
    }
}
