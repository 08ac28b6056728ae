//! The text of metrics: OpenMetrics, and the older Prometheus format that the textfile collector of node_exporter reads.

use std::fmt::Write as _;

/// The format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4 of Prometheus.
    Prometheus,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number that goes up and down.
    Gauge,
    /// A number that only goes up, but for a new store.
    Counter,
    /// Facts as labels.
    Info,
}

/// A metric with its samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Family {
    /// Creates a metric without samples. A counter is named without `_total`.
    pub fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, kind, help, samples: Vec::new() }
    }

    /// Adds the only sample.
    #[must_use]
    pub fn only(mut self, value: f64) -> Self {
        self.samples.push((Vec::new(), value));
        self
    }

    /// Adds a sample with labels, of which empty ones are left out.
    pub fn add(&mut self, labels: &[(&'static str, &str)], value: f64) {
        let labels = labels.iter().filter(|(_, value)| !value.is_empty());
        self.samples.push((labels.map(|(name, value)| (*name, (*value).to_owned())).collect(), value));
    }
}

/// Returns the text of metrics. One without samples is left out.
pub fn text(families: &[Family], format: Format) -> String {
    let mut text = String::new();
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        let suffix = match family.kind {
            Kind::Gauge => "",
            Kind::Counter => "_total",
            Kind::Info => "_info",
        };
        // The older format knows no infos, and names a counter like its samples.
        let (title, kind) = match (format, family.kind) {
            (Format::OpenMetrics, Kind::Gauge) | (Format::Prometheus, Kind::Gauge) => (family.name.to_owned(), "gauge"),
            (Format::OpenMetrics, Kind::Counter) => (family.name.to_owned(), "counter"),
            (Format::OpenMetrics, Kind::Info) => (family.name.to_owned(), "info"),
            (Format::Prometheus, Kind::Counter) => (format!("{}{suffix}", family.name), "counter"),
            (Format::Prometheus, Kind::Info) => (format!("{}{suffix}", family.name), "gauge"),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {title} {}\n# TYPE {title} {kind}", family.help);
        for (labels, value) in &family.samples {
            let labels: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(text, "{}{suffix}{labels} {value}", family.name);
        }
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_name_and_escape_as_their_readers_expect() {
        let mut events = Family::new("diagctl_events", Kind::Counter, "Events.");
        events.add(&[("event", "deleted"), ("rule", ""), ("cause", "a\"b\\c\nd")], 3.0);
        let info = {
            let mut info = Family::new("diagctl_build", Kind::Info, "The program.");
            info.add(&[("version", "0.1.0")], 1.0);
            info
        };
        let families = [
            info,
            events,
            Family::new("empty", Kind::Gauge, "Nothing."),
            Family::new("g", Kind::Gauge, "One.").only(1.5),
        ];
        assert_eq!(
            text(&families, Format::OpenMetrics),
            "# HELP diagctl_build The program.\n# TYPE diagctl_build info\ndiagctl_build_info{version=\"0.1.0\"} 1\n\
             # HELP diagctl_events Events.\n# TYPE diagctl_events counter\n\
             diagctl_events_total{event=\"deleted\",cause=\"a\\\"b\\\\c\\nd\"} 3\n\
             # HELP g One.\n# TYPE g gauge\ng 1.5\n# EOF\n"
        );
        let old = text(&families, Format::Prometheus);
        assert!(
            old.contains("# TYPE diagctl_events_total counter\n") && old.contains("# TYPE diagctl_build_info gauge\n"),
            "{old}"
        );
        assert!(!old.contains("EOF"));
    }
}
