//! A comparison as a picture: arrivals, backlog, workers and age of the oldest job over time.
//!
//! The picture is SVG. The program that shows it renders the text, so no font is needed here.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::comparison::Comparison;
use super::view::View;

/// The size of the picture, in pixels.
const SIZE: (u32, u32) = (1000, 1180);
/// The heights of the title and of a line of the legend, in pixels.
const TITLE_HEIGHT: u32 = 36;
const LEGEND_HEIGHT: u32 = 22;
/// The maximum width of a letter in the legend, in pixels.
const LETTER: i32 = 8;
/// The stroke beside a name in the legend, and the gap after the name, in pixels.
const STROKE: i32 = 24;
const GAP: i32 = 22;
/// The maximum number of points of a line. More cannot be distinguished.
const MAX_POINTS: usize = 500;

/// Colours that are distinguishable with most colour deficiencies (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];
const ARRIVALS: RGBColor = RGBColor(90, 90, 90);

/// A picture that could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot be drawn")]
pub struct PlotError(#[source] Box<dyn std::error::Error + Send + Sync>);

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A line of a panel: its colour, and its points in seconds and in the unit of the panel.
struct PlotLine {
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

/// A panel: the text of its axis, and its lines.
struct Panel {
    axis: &'static str,
    lines: Vec<PlotLine>,
}

/// Draws the picture as SVG, with one line per policy. The panels are arrivals, backlog, workers (ready and loading)
/// and age of the oldest waiting job.
pub fn svg(comparison: &Comparison<'_>) -> Result<String, PlotError> {
    let mut text = String::new();
    draw(comparison, &mut text).map_err(|error| PlotError(error.into()))?;
    Ok(text)
}

fn draw(comparison: &Comparison<'_>, text: &mut String) -> Drawn {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!("{}: {} jobs", comparison.name, comparison.trace.jobs.len());
    root.draw(&Text::new(title, (12, 10), ("sans-serif", 22)))?;
    let places = legend(comparison);
    let rows = places.last().map_or(1, |(_, row)| row + 1);
    let (head, body) = root.split_vertically(TITLE_HEIGHT + rows * LEGEND_HEIGHT);
    for ((index, run), (x, row)) in comparison.runs.iter().enumerate().zip(places) {
        let y = (TITLE_HEIGHT + row * LEGEND_HEIGHT + LEGEND_HEIGHT / 2) as i32;
        head.draw(&PathElement::new([(x, y), (x + STROKE, y)], colour(index).stroke_width(3)))?;
        head.draw(&Text::new(run.policy.clone(), (x + STROKE + 6, y - 7), ("sans-serif", 15)))?;
    }
    let panels = panels(comparison);
    let latest = panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| line.points.last());
    let until = latest.map(|(at, _)| *at).fold(1.0, f64::max);
    for (panel, area) in panels.iter().zip(body.split_evenly((panels.len(), 1))) {
        panel.draw(&area, until)?;
    }
    root.present()
}

/// The place of each run in the legend: pixels from the left, and the row.
fn legend(comparison: &Comparison<'_>) -> Vec<(i32, u32)> {
    let (mut x, mut row) = (12_i32, 0);
    let place = |name: &str| {
        let letters = i32::try_from(name.chars().count()).unwrap_or(i32::MAX / LETTER);
        let width = STROKE + letters.saturating_mul(LETTER);
        if x > 12 && x.saturating_add(width) > SIZE.0 as i32 {
            (x, row) = (12, row + 1);
        }
        let place = (x, row);
        x = x.saturating_add(width + GAP);
        place
    };
    comparison.runs.iter().map(|run| run.policy.as_str()).map(place).collect()
}

fn colour(index: usize) -> RGBColor {
    if let Some(colour) = COLOURS.get(index) {
        return *colour;
    }
    // Steps of the golden angle keep further colours apart from each other.
    let (r, g, b) = HSLColor((index as f64 * 0.381_966) % 1.0, 0.6, 0.4).rgb();
    RGBColor(r, g, b)
}

fn panels(comparison: &Comparison<'_>) -> [Panel; 4] {
    let of_runs = |of: fn(&View) -> f64| {
        let line = |(index, run): (usize, &super::comparison::Run)| {
            let points: Vec<_> = run.series.iter().map(|view| (view.now.as_secs_f64(), of(view))).collect();
            PlotLine { colour: colour(index), points: thinned(&points) }
        };
        comparison.runs.iter().enumerate().map(line).collect()
    };
    [
        Panel { axis: "arrivals [jobs/s]", lines: vec![PlotLine { colour: ARRIVALS, points: arrivals(comparison) }] },
        Panel { axis: "backlog [jobs]", lines: of_runs(|view| (view.waiting() + view.leased) as f64) },
        Panel { axis: "workers [ready + loading]", lines: of_runs(|view| f64::from(view.ready() + view.loading())) },
        Panel { axis: "age of the oldest job [s]", lines: of_runs(|view| view.oldest_wait.as_secs_f64()) },
    ]
}

/// The rate of arrivals, counted over equal parts of the trace.
fn arrivals(comparison: &Comparison<'_>) -> Vec<(f64, f64)> {
    let length = comparison.trace.length.as_secs_f64();
    let bins = (length as usize).clamp(1, MAX_POINTS);
    let width = length.max(f64::MIN_POSITIVE) / bins as f64;
    let mut counts = vec![0_u64; bins];
    for job in &comparison.trace.jobs {
        counts[((job.at.as_secs_f64() / width) as usize).min(bins - 1)] += 1;
    }
    let edges = |(bin, count): (usize, &u64)| {
        let rate = *count as f64 / width;
        [(bin as f64 * width, rate), ((bin + 1) as f64 * width, rate)]
    };
    counts.iter().enumerate().flat_map(edges).collect()
}

/// Reduces the number of points. The highest and the lowest points stay.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MAX_POINTS {
        return points.to_vec();
    }
    let by_value = |one: &&(f64, f64), other: &&(f64, f64)| one.1.total_cmp(&other.1);
    let extremes = |part: &[(f64, f64)]| {
        let lowest = part.iter().min_by(by_value).copied();
        let highest = part.iter().max_by(by_value).copied();
        let (first, second) =
            if lowest.map(|it| it.0) <= highest.map(|it| it.0) { (lowest, highest) } else { (highest, lowest) };
        [first, second.filter(|_| first != second)]
    };
    points.chunks(points.len().div_ceil(MAX_POINTS / 2)).flat_map(extremes).flatten().collect()
}

impl Panel {
    fn draw(&self, area: &Area<'_>, until: f64) -> Drawn {
        let (unit, seconds) = time_unit(until);
        let highest = self.lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value).fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(78)
            .build_cartesian_2d(0.0..until / seconds, 0.0..highest * 1.05)?;
        let plain = |value: &f64| plain(*value);
        chart
            .configure_mesh()
            .x_desc(format!("time [{unit}]"))
            .y_desc(self.axis)
            .x_labels(12)
            .y_labels(6)
            .x_label_formatter(&plain)
            .y_label_formatter(&plain)
            .label_style(("sans-serif", 13))
            .axis_desc_style(("sans-serif", 15))
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .draw()?;
        for line in &self.lines {
            let points = line.points.iter().map(|(at, value)| (at / seconds, *value));
            chart.draw_series(LineSeries::new(points, line.colour.mix(0.8).stroke_width(2)))?;
        }
        Ok(())
    }
}

/// The unit of a time axis with this length in seconds, and the length of the unit.
fn time_unit(until: f64) -> (&'static str, f64) {
    const UNITS: [(&str, f64); 3] = [("d", 86_400.0), ("h", 3600.0), ("min", 60.0)];
    UNITS.into_iter().find(|(_, seconds)| until >= 3.0 * seconds).unwrap_or(("s", 1.0))
}

/// A number without rounding errors: `0.30000000000000004` becomes `0.3`.
fn plain(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use policy::reading::Fleet;
    use queue::Class;

    use super::*;
    use crate::comparison::Run;
    use crate::outcome::Outcome;
    use crate::scenario::Objective;
    use crate::trace::{Arrival, Trace};

    fn view(now: u64, waiting: u64, ready: u32) -> View {
        View {
            now: Duration::from_secs(now),
            waiting: [0, waiting, 0],
            oldest_wait: Duration::from_secs(waiting),
            fleet: Fleet { ready: ready.into(), ..Fleet::default() },
            ..View::default()
        }
    }

    fn outcome(series: Vec<View>) -> Outcome {
        let worker_time = Duration::from_secs(1);
        Outcome { worker_time, starts: 1, cold_starts: 1, series, ..Outcome::default() }
    }

    fn picture(names: &[&str], points: u64) -> String {
        let jobs = (0..points)
            .map(|at| Arrival { at: Duration::from_secs(at * 5), work: 1.0, class: Class::Standard })
            .collect();
        let trace = Trace { jobs, length: Duration::from_secs(points * 5) };
        let objective = Objective { latency: service::Period::seconds(5), percentile: 95.0 };
        let (bound, upper_bound) = (Duration::ZERO, None);
        let mut comparison =
            Comparison { name: "night & day", trace: &trace, objective, bound, upper_bound, runs: Vec::new() };
        for name in names {
            let outcome = outcome((0..points).map(|at| view(at * 5, at % 100, 3)).collect());
            comparison.runs.push(Run::new(name, &trace, objective.percentile, outcome));
        }
        svg(&comparison).unwrap()
    }

    /// The text outside of tags. Asserts that every opened tag is closed.
    fn text_of(svg: &str) -> String {
        let (mut open, mut text, mut rest) = (Vec::new(), String::new(), svg);
        while let Some((before, tag_and_rest)) = rest.split_once('<') {
            text.push_str(before);
            let (tag, after) = tag_and_rest.split_once('>').unwrap();
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            rest = after;
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{svg}");
            } else if !tag.ends_with('/') && !tag.starts_with(['?', '!']) {
                open.push(tag.split_whitespace().next().unwrap());
            }
        }
        assert!(open.is_empty() && !svg.is_empty(), "{open:?}");
        for reference in text.split('&').skip(1) {
            let (name, _) = reference.split_once(';').unwrap();
            assert!(["amp", "lt", "gt", "quot", "apos", "#39"].contains(&name), "{reference}");
        }
        text
    }

    #[test]
    fn a_picture_is_well_formed_and_names_its_series_and_axes() {
        let text = text_of(&picture(&["backlog", "a <b> & \"c\""], 50));
        let names = ["night &amp; day: 50 jobs", "backlog", "a &lt;b&gt; &amp; "];
        let axes = [
            "arrivals [jobs/s]",
            "backlog [jobs]",
            "workers [ready + loading]",
            "age of the oldest job [s]",
            "time [min]",
        ];
        for expected in names.into_iter().chain(axes) {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
    }

    #[test]
    fn the_same_runs_give_the_same_picture_and_every_line_has_its_own_colour() {
        let names: Vec<String> = (0..12).map(|index| format!("a policy whose name is long {index}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(picture(&names, 20), picture(&names, 20));
        let colours: std::collections::BTreeSet<_> = (0..12).map(colour).map(|it| (it.0, it.1, it.2)).collect();
        assert_eq!(colours.len(), 12);
    }

    #[test]
    fn a_long_series_has_few_points_and_keeps_its_peaks() {
        let points: Vec<_> = (0..100_000).map(|at| (f64::from(at), if at == 77_777 { 9.0 } else { 1.0 })).collect();
        let thinned = thinned(&points);
        assert!(thinned.len() <= MAX_POINTS && thinned.contains(&(77_777.0, 9.0)));
        assert!(thinned.is_sorted_by_key(|(at, _)| *at));
        assert!(picture(&["one"], 20_000).len() < 200_000);
    }

    #[test]
    fn empty_comparisons_can_be_drawn_too() {
        assert!(text_of(&picture(&[], 0)).contains("0 jobs"));
        assert!(text_of(&picture(&["idle"], 1)).contains("idle"));
    }
}
