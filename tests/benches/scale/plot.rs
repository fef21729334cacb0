//! The plot: an SVG with its own background, light or dark as the reader's colour scheme.

use std::fmt::Write;

use crate::Size;

// Lengths in SVG user units.
const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 400.0;
const TOP: f64 = 92.0;
const BOTTOM: f64 = 330.0;
/// Left edges of the two panels, and their width.
const PANELS: [f64; 2] = [74.0, 532.0];
const PANEL: f64 = 344.0;

const STYLE: &str = "
    .page{fill:#fafbfd} text{fill:#223;font-size:12.5px} .soft{fill:#667;font-size:12px} .title{font-weight:600;font-size:15px}
    .head{font-weight:600;font-size:13px} .grid{stroke:#d5d9e4} .ours,.theirs{fill:none;stroke-width:2}
    .ours{stroke:#4653c5} .theirs{stroke:#8890a5;stroke-dasharray:5 4} .dot{fill:#4653c5} .spot{fill:#8890a5}
    .end{text-anchor:end} .middle{text-anchor:middle}
    @media (prefers-color-scheme:dark){
      .page{fill:#14171f} text{fill:#e3e7f2} .soft{fill:#9aa3b8} .grid{stroke:#2b3040} .ours{stroke:#8490ff} .dot{fill:#8490ff}
    }";

struct Line<'a> {
    name: &'a str,
    class: &'a str,
    dot: &'a str,
    points: Vec<(f64, f64)>,
}

/// Draws start time and memory by number of peers.
pub(crate) fn draw(sizes: &[Size]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"system-ui, sans-serif\" \
         role=\"img\" aria-label=\"Time to start and memory of a daemon by the number of peers; docs/performance.md has the \
         numbers.\">\n  <style>{STYLE}\n  </style>\n  <rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"10\"/>\n  \
         <text x=\"24\" y=\"34\" class=\"title\">A daemon by the number of its peers</text>\n  \
         <text x=\"24\" y=\"56\" class=\"soft\">Medians. Dashed: what ip -batch and bridge -batch take for the same objects.</text>\n"
    );
    let points = |value: fn(&Size) -> f64| {
        sizes.iter().map(|size| (f64::from(size.peers), value(size))).collect::<Vec<_>>()
    };
    let start = |size: &Size| size.start / 1000.0;
    let by_hand = |size: &Size| size.by_hand / 1000.0;
    let ours = Line { name: "heddled", class: "ours", dot: "dot", points: points(start) };
    let theirs = Line { name: "by hand", class: "theirs", dot: "spot", points: points(by_hand) };
    panel(&mut svg, PANELS[0], "from exec to READY, in s", &[theirs, ours]);
    let memory = Line { name: "", class: "ours", dot: "dot", points: points(|size| size.memory) };
    panel(&mut svg, PANELS[1], "resident memory, in MiB", &[memory]);
    svg + "</svg>\n"
}

fn panel(svg: &mut String, left: f64, title: &str, lines: &[Line<'_>]) {
    let all = || lines.iter().flat_map(|line| &line.points);
    let most = |part: fn(&(f64, f64)) -> f64| all().map(part).fold(0.0, f64::max);
    let (widest, highest) = (most(|point| point.0), most(|point| point.1));
    let step = nice(highest / 4.0);
    let top = step * (highest / step).ceil();
    let x = |peers: f64| left + PANEL * peers / widest;
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * value / top;
    writeln!(svg, r#"  <text x="{left}" y="{}" class="head">{title}</text>"#, TOP - 12.0).unwrap();
    let mut value = 0.0;
    while value <= top + step / 2.0 {
        let at = y(value);
        writeln!(svg, r#"  <path class="grid" d="M{left} {at:.1}h{PANEL}"/>"#).unwrap();
        let (text_x, text_y) = (left - 8.0, at + 4.0);
        writeln!(
            svg,
            r#"  <text x="{text_x}" y="{text_y:.1}" class="soft end">{}</text>"#,
            short(value)
        )
        .unwrap();
        value += step;
    }
    for part in 0..=4 {
        let peers = widest * f64::from(part) / 4.0;
        let (at, below) = (x(peers), BOTTOM + 20.0);
        writeln!(
            svg,
            r#"  <text x="{at:.1}" y="{below}" class="soft middle">{}</text>"#,
            short(peers)
        )
        .unwrap();
    }
    let (middle, below) = (left + PANEL / 2.0, BOTTOM + 42.0);
    writeln!(svg, r#"  <text x="{middle}" y="{below}" class="soft middle">peers</text>"#).unwrap();
    for Line { name, class, dot, points } in lines {
        let path: Vec<_> = points
            .iter()
            .map(|(peers, value)| format!("{:.1} {:.1}", x(*peers), y(*value)))
            .collect();
        writeln!(svg, r#"  <path class="{class}" d="M{}"/>"#, path.join("L")).unwrap();
        for (peers, value) in points {
            let (at, height) = (x(*peers), y(*value));
            writeln!(svg, r#"  <circle class="{dot}" cx="{at:.1}" cy="{height:.1}" r="3.2"/>"#)
                .unwrap();
        }
        if let Some((peers, value)) = points.last().filter(|_| !name.is_empty()) {
            let (at, height) = (x(*peers) + 8.0, y(*value) + 4.0);
            writeln!(svg, r#"  <text x="{at:.1}" y="{height:.1}" class="soft">{name}</text>"#)
                .unwrap();
        }
    }
}

/// Rounds up to 1, 2 or 5 times a power of ten.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    steps.map(|step| step * power).into_iter().find(|step| *step >= value).unwrap_or(value)
}

fn short(value: f64) -> String {
    if value >= 1000.0 && value % 1000.0 == 0.0 {
        format!("{},000", value / 1000.0)
    } else {
        format!("{}", (value * 100.0).round() / 100.0)
    }
}
