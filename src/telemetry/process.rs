//! What the kernel says about this process (`proc(5)`); where there is no `/proc` the metrics are absent.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::family::reading;
use super::table::{
    Metric, PROCESS_CPU, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RESIDENT, PROCESS_START, PROCESS_THREADS,
    PROCESS_VIRTUAL,
};

/// Reads `/proc/self` at each scrape.
#[derive(Debug)]
pub(super) struct Process {
    descriptions: Vec<Desc>,
}

impl Process {
    pub(super) fn new() -> Self {
        let metrics: [&Metric; 7] = [
            &PROCESS_CPU,
            &PROCESS_RESIDENT,
            &PROCESS_VIRTUAL,
            &PROCESS_OPEN_FDS,
            &PROCESS_MAX_FDS,
            &PROCESS_THREADS,
            &PROCESS_START,
        ];
        let describe = |metric: &&Metric| {
            Desc::new(metric.name.to_owned(), metric.help.to_owned(), Vec::new(), std::collections::HashMap::new())
        };
        Self { descriptions: metrics.iter().filter_map(|metric| describe(metric).ok()).collect() }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text));
        let boot = fs::read_to_string("/proc/stat").ok().and_then(|text| field_after(&text, "btime "));
        let resident = fs::read_to_string("/proc/self/status").ok().and_then(|text| field_after(&text, "VmRSS:"));
        let max_fds =
            fs::read_to_string("/proc/self/limits").ok().and_then(|text| field_after(&text, "Max open files"));
        let open_fds = fs::read_dir("/proc/self/fd").ok().map(|entries| count(entries.count()));
        let began = stat.as_ref().zip(boot).map(|(stat, boot)| boot + stat.start_ticks / TICKS_PER_SECOND);
        let readings = [
            (&PROCESS_CPU, stat.as_ref().map(|stat| stat.cpu_ticks / TICKS_PER_SECOND)),
            (&PROCESS_RESIDENT, resident.map(|kib| kib * 1024.0)),
            (&PROCESS_VIRTUAL, stat.as_ref().map(|stat| stat.virtual_bytes)),
            (&PROCESS_OPEN_FDS, open_fds),
            (&PROCESS_MAX_FDS, max_fds),
            (&PROCESS_THREADS, stat.as_ref().map(|stat| stat.threads)),
            (&PROCESS_START, began),
        ];
        readings.into_iter().filter_map(|(metric, value)| Some(reading(metric, value?))).flatten().collect()
    }
}

/// The fields of `/proc/self/stat` that we show.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    threads: f64,
    start_ticks: f64,
    virtual_bytes: f64,
}

impl Stat {
    /// Parses `proc_pid_stat(5)`. The second field may contain anything, so counting starts after its last `)`.
    fn parse(text: &str) -> Option<Self> {
        let (_, after) = text.rsplit_once(')')?;
        let fields: Vec<&str> = after.split_ascii_whitespace().collect();
        // `after` begins with field 3, the state.
        let field = |number: usize| -> Option<f64> { fields.get(number.checked_sub(3)?)?.parse().ok() };
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
        })
    }
}

/// The first number after `prefix` at the start of a line.
fn field_after(text: &str, prefix: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(prefix))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}

/// `USER_HZ`, which is 100 on every Linux that a container runs on.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_brackets_does_not_move_the_fields() {
        let text = "1 (a) b) S 2 3 4 5 6 7 8 9 10 11 150 50 0 0 20 0 9 0 1000 4096000 77 0";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat, Stat { cpu_ticks: 200.0, threads: 9.0, start_ticks: 1000.0, virtual_bytes: 4_096_000.0 });
        assert_eq!(Stat::parse("1 (a S"), None);
        assert_eq!(Stat::parse("1 (a) S 2"), None);
    }

    #[test]
    fn numbers_are_found_by_their_line() {
        let limits =
            "Limit Soft Hard Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(field_after(limits, "Max open files"), Some(1024.0));
        assert_eq!(field_after("cpu 1 2\nbtime 1700000000\n", "btime "), Some(1_700_000_000.0));
        assert_eq!(field_after("cpu 1 2\n", "btime "), None);
    }

    #[test]
    fn this_process_has_memory_and_threads() {
        let families = Process::new().collect();
        assert_eq!(families.len(), 7);
        for family in families {
            let metric = family.get_metric().first().unwrap();
            let value = metric.get_gauge().get_value() + metric.get_counter().get_value();
            assert!(value > 0.0 || family.name() == "process_cpu_seconds_total", "{}", family.name());
        }
    }
}
