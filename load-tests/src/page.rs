//! A run as one HTML page that needs nothing else: figures, plots as SVG, every subscriber.

use std::fmt::Write as _;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::report::{Report, Step, StepKind};
use crate::stats::Quantiles;

/// How much higher than its highest point a plot is: room for the legend.
const HEADROOM: f64 = 1.3;

/// Width and height of a plot.
const PLOT: (u32, u32) = (760, 300);

pub(crate) const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem;\
color:#1d2733}h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse}\
td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #d8dee6}td:first-child,th:first-child\
{text-align:left}.bad{background:#fdecea;border-left:4px solid #c0392b;padding:.5rem 1rem}svg{max-width:100%;\
height:auto}";

pub(crate) struct Series {
    name: &'static str,
    color: RGBColor,
    points: Vec<(f64, f64)>,
    /// Whether the points stand alone, with no line between them.
    is_marks: bool,
}

impl Report {
    /// The page.
    ///
    /// # Errors
    /// When a plot can't be drawn.
    pub fn page(&self) -> Result<String> {
        let mut out = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{0} on {1}</title>\
             <style>{STYLE}</style><h1>{0} on {1}</h1><p>{2}. Measured for {3:.1} s.</p>",
            escape(&self.scenario),
            escape(&self.server),
            escape(&self.about),
            self.seconds,
        );
        for (title, lines) in [
            ("These figures are not to be trusted", &self.invalid),
            ("Failures", &self.failures),
        ] {
            if lines.is_empty() {
                continue;
            }
            let _ = write!(out, "<div class=\"bad\"><b>{title}</b><ul>");
            for line in lines {
                let _ = write!(out, "<li>{}</li>", escape(line));
            }
            out.push_str("</ul></div>");
        }
        self.figures(&mut out);
        self.plots(&mut out)?;
        self.subscribers(&mut out);
        Ok(out)
    }

    fn figures(&self, out: &mut String) {
        out.push_str("<h2>Figures</h2><table>");
        let mut row = |name: &str, value: String| {
            let _ = write!(out, "<tr><td>{name}</td><td>{}</td></tr>", escape(&value));
        };
        let total = &self.total;
        row("clients", self.clients.to_string());
        row("packets sent", total.sent.to_string());
        row(
            "packets expected / received",
            format!("{} / {}", total.count.expected, total.count.received),
        );
        row(
            "lost",
            format!("{} ({:.4} %)", total.lost, total.loss * 100.0),
        );
        row(
            "reordered / duplicates",
            format!("{} / {}", total.count.reordered, total.count.duplicates),
        );
        row("jumps of RTP numbers and times", total.jumps.to_string());
        row("latency", words(&total.latency_ms));
        for (name, kind) in [("audio", &total.audio), ("video", &total.video)] {
            row(
                name,
                format!(
                    "{} of {} lost; {}",
                    kind.lost,
                    kind.expected,
                    words(&kind.latency_ms)
                ),
            );
        }
        row("time to first keyframe", words(&total.first_keyframe_ms));
        if let Some(turns) = &total.turn_keyframe_ms {
            row("from a speaker's turn to its keyframe", words(turns));
        }
        row("time until connected", words(&total.connected_ms));
        row("keyframe requests", total.keyframe_requests.to_string());
        if let Some(cost) = &self.process {
            if let Some(micros) = cost.cpu_us_per_packet {
                row(
                    "server: processor time per forwarded packet",
                    format!("{micros:.2} µs"),
                );
            }
            row("server: cores", format!("{:.2}", cost.cores));
            row("server: waiting for a core", share(cost.waiting));
            row(
                "server: packets per wake-up",
                format!("{:.1}", cost.packets_per_wake_up),
            );
            row(
                "server: packets per message / per call",
                format!(
                    "{} / {}",
                    known(cost.packets_per_message, 1),
                    known(cost.packets_per_call, 1)
                ),
            );
            row(
                "server: memory",
                format!(
                    "{} kB, {:.0} kB per client",
                    cost.rss_kb, cost.rss_per_client_kb
                ),
            );
        }
        let profiles = self
            .srtp_profiles
            .iter()
            .map(|(profile, count)| format!("{profile} on {count}"));
        row("SRTP profiles", profiles.collect::<Vec<_>>().join(", "));
        row(
            "generator: busiest thread",
            share(self.generator.busiest_thread),
        );
        row(
            "generator: waiting for a core",
            share(self.generator.longest_waiting),
        );
        row(
            "generator: frames sent late by",
            words(&self.generator.lateness_ms),
        );
        row("generator: memory", format!("{} kB", self.generator.rss_kb));
        out.push_str("</table>");
    }

    fn plots(&self, out: &mut String) -> Result<()> {
        let over_time = |value: fn(&Quantiles) -> f64| {
            self.timeline
                .iter()
                .map(|step| (step.at, value(&step.latency_ms)))
                .collect()
        };
        let latency = [
            series("p50", BLUE, over_time(|it| it.p50)),
            series("p95", GREEN, over_time(|it| it.p95)),
            series("p99", MAGENTA, over_time(|it| it.p99)),
            series("max", RED, over_time(|it| it.max)),
        ];
        plot(out, "Latency over time", "s", "ms", &latency)?;
        let kinds = |value: fn(&StepKind) -> f64| {
            let of = |kind: fn(&Step) -> &StepKind| {
                let steps = self.timeline.iter().filter(|step| kind(step).packets > 0.0);
                steps
                    .map(|step| (step.at, value(kind(step))))
                    .collect::<Vec<_>>()
            };
            [
                series("audio", GREEN, of(|step| &step.audio)),
                series("video", RED, of(|step| &step.video)),
            ]
        };
        let latency = kinds(|it| it.latency_ms.p99);
        plot(
            out,
            "99th percentile of latency over time",
            "s",
            "ms",
            &latency,
        )?;
        let packets = kinds(|it| it.packets);
        plot(out, "Packets received", "s", "packets/s", &packets)?;
        let by_subscriber = |value: &dyn Fn(&crate::report::Subscriber) -> Option<f64>| {
            let mut values: Vec<f64> = self.subscribers.iter().filter_map(value).collect();
            values.sort_by(f64::total_cmp);
            (1..)
                .map(f64::from)
                .zip(values)
                .collect::<Vec<(f64, f64)>>()
        };
        let latency = [
            series("p50", BLUE, by_subscriber(&|it| Some(it.latency_ms.p50))),
            series("p99", MAGENTA, by_subscriber(&|it| Some(it.latency_ms.p99))),
        ];
        plot(
            out,
            "Latency by subscriber, sorted",
            "subscriber",
            "ms",
            &latency,
        )?;
        let loss = |it: &crate::report::Subscriber| {
            Some(it.lost as f64 * 100.0 / it.count.expected.max(1) as f64)
        };
        let loss = [series("lost", RED, by_subscriber(&loss))];
        plot(out, "Loss by subscriber, sorted", "subscriber", "%", &loss)?;
        let joins = [
            series("connected", GREEN, by_subscriber(&|it| it.connected_ms)),
            series("keyframe", BLUE, by_subscriber(&|it| it.first_keyframe_ms)),
        ];
        plot(
            out,
            "From joining to the first keyframe, sorted",
            "subscriber",
            "ms",
            &joins,
        )
    }

    fn subscribers(&self, out: &mut String) {
        out.push_str(
            "<h2>Subscribers</h2><details><summary>All of them</summary><table><tr><th>name</th>\
             <th>expected</th><th>received</th><th>lost</th><th>reordered</th><th>p50 ms</th><th>p95 ms</th>\
             <th>p99 ms</th><th>max ms</th><th>keyframe ms</th></tr>",
        );
        for one in &self.subscribers {
            let _ = write!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.2}</td><td>{:.2}</td>\
                 <td>{:.2}</td><td>{:.2}</td><td>{}</td></tr>",
                escape(&one.name),
                one.count.expected,
                one.count.received,
                one.lost,
                one.count.reordered,
                one.latency_ms.p50,
                one.latency_ms.p95,
                one.latency_ms.p99,
                one.latency_ms.max,
                one.first_keyframe_ms
                    .map_or_else(|| "–".to_owned(), |ms| format!("{ms:.0}")),
            );
        }
        out.push_str("</table></details></html>");
    }
}

pub(crate) fn series(name: &'static str, color: RGBColor, points: Vec<(f64, f64)>) -> Series {
    Series {
        name,
        color,
        points,
        is_marks: false,
    }
}

/// Points that no line runs through.
pub(crate) fn marks(name: &'static str, color: RGBColor, points: Vec<(f64, f64)>) -> Series {
    Series {
        is_marks: true,
        ..series(name, color, points)
    }
}

fn words(quantiles: &Quantiles) -> String {
    format!(
        "p50 {:.2}, p95 {:.2}, p99 {:.2}, max {:.2} ms",
        quantiles.p50, quantiles.p95, quantiles.p99, quantiles.max
    )
}

/// A figure, or a dash where there is none.
pub fn known(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

fn share(of: f64) -> String {
    format!("{:.1} % of the time", of * 100.0)
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Appends a line plot; nothing if there are no points.
pub(crate) fn plot(out: &mut String, title: &str, x: &str, y: &str, all: &[Series]) -> Result<()> {
    let points = || all.iter().flat_map(|series| &series.points);
    if points().next().is_none() {
        return Ok(());
    }
    let far = points().map(|(x, _)| *x).fold(0.0, f64::max).max(1.0);
    let high = points().map(|(_, y)| *y).fold(0.0, f64::max).max(0.001) * HEADROOM;
    let mut svg = String::new();
    {
        let wrong = |error: &dyn std::fmt::Display| anyhow!("the plot of {title}: {error}");
        let root = SVGBackend::with_string(&mut svg, PLOT).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .margin_right(24)
            .x_label_area_size(36)
            .y_label_area_size(76)
            .build_cartesian_2d(0.0..far, 0.0..high)
            .map_err(|error| wrong(&error))?;
        chart
            .configure_mesh()
            .x_desc(x)
            .y_desc(y)
            .light_line_style(TRANSPARENT)
            .draw()
            .map_err(|error| wrong(&error))?;
        for one in all {
            let color = one.color;
            if one.points.is_empty() {
                continue;
            }
            let points = one.points.iter().copied();
            if one.is_marks {
                chart
                    .draw_series(points.map(|point| Cross::new(point, 5, color.stroke_width(2))))
                    .map_err(|error| wrong(&error))?
                    .label(one.name)
                    .legend(move |(x, y)| Cross::new((x + 8, y), 5, color.stroke_width(2)));
            } else {
                chart
                    .draw_series(LineSeries::new(points, color).point_size(2))
                    .map_err(|error| wrong(&error))?
                    .label(one.name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .draw()
            .map_err(|error| wrong(&error))?;
        root.present().map_err(|error| wrong(&error))?;
    }
    let _ = write!(out, "<h2>{}</h2>{svg}", escape(title));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_is_an_svg_and_an_empty_one_is_nothing() {
        let mut out = String::new();
        plot(&mut out, "x", "s", "ms", &[series("a", RED, Vec::new())]).unwrap();
        assert!(out.is_empty());
        let points = vec![(0.0, 1.0), (1.0, 3.0)];
        plot(&mut out, "a < b", "s", "ms", &[series("a", RED, points)]).unwrap();
        assert!(out.contains("<svg") && out.contains("a &lt; b") && !out.contains("href"));
    }
}
