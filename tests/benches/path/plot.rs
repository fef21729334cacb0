//! The plot: an SVG with its own background, light or dark as the reader's colour scheme.

use std::fmt::Write;

use heddle_tests::measurement::{median, quantile};

use crate::load::Load;
use crate::results::{Results, Sample, digits};
use crate::variant::Variant;

/// One diagram of the plot.
struct Panel {
    title: String,
    /// True if the note "less is better" replaces "more is better".
    less_is_better: bool,
    unit: &'static str,
    load: Load,
    quantity: fn(&Sample) -> f64,
}

fn panels() -> [Panel; 6] {
    let rate = |load: Load| Panel {
        title: load.name().into(),
        less_is_better: false,
        unit: load.rate_unit(),
        load,
        quantity: Sample::rate,
    };
    let cost = |load: Load| Panel {
        title: format!("{}: CPU time", load.name()),
        less_is_better: true,
        unit: load.cost_unit(),
        load,
        quantity: Sample::cost,
    };
    [
        rate(Load::Stream),
        cost(Load::Stream),
        rate(Load::Streams),
        rate(Load::BothWays),
        rate(Load::SmallPackets),
        cost(Load::SmallPackets),
    ]
}

// Lengths in SVG user units.
const WIDTH: u32 = 920;
const MARGIN: u32 = 24;
const TOP: u32 = 84;
const COLUMN: u32 = 448;
/// Left edge of a panel's bars, right edge of their values, and length of a bar whose ratio to
/// kernel VXLAN is 1.
const BARS: u32 = 122;
const VALUES: u32 = 424;
const UNIT: f64 = 60.0;
/// Ratio to kernel VXLAN at which longer bars are cut.
const CUT: f64 = 2.5;
const ROW: u32 = 21;
const BAR: u32 = 13;

const STYLE: &str = "
    .page{fill:#fafbfd} text{fill:#223} .soft{fill:#667;font-size:12px} .title{font-weight:600} .head{font-weight:600;font-size:13px}
    .value{font-weight:600;font-size:12.5px;text-anchor:end} .unit{fill:#667;font-size:12px;text-anchor:end}
    .label{font-size:12.5px;text-anchor:end} .grid{stroke:#d5d9e4} .base{stroke:#8890a5;stroke-dasharray:3 3}
    .kernel{fill:#a3abbd} .plugin{fill:#4653c5} .native{fill:#a9b1f0} .naive{fill:#d3a15f}
    .range{stroke:#223;stroke-opacity:.55;stroke-width:1.2} .cut{stroke:#fafbfd;stroke-width:3;fill:none}
    .ours{fill:#3440a8;font-weight:600}
    @media (prefers-color-scheme:dark){
      .page{fill:#14171f} text{fill:#e3e7f2} .soft,.unit{fill:#9aa3b8} .grid{stroke:#2b3040} .base{stroke:#79829a}
      .kernel{fill:#5c657b} .plugin{fill:#8490ff} .native{fill:#4a53a3} .naive{fill:#a97a3c}
      .range{stroke:#fff} .cut{stroke:#14171f} .ours{fill:#aab3ff}
    }";

/// Draws the results; every bar is a ratio to kernel VXLAN.
pub(crate) fn draw(results: &Results) -> String {
    let variants = results.variants();
    let rows = number(variants.len());
    let panel_height = 58 + rows * ROW;
    let panels = panels();
    let height = TOP + number(panels.len().div_ceil(2)) * panel_height + 44;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"14\" role=\"img\" aria-label=\"How fast packets get from one \
         host to another, compared with the kernel's VXLAN device; docs/performance.md has the numbers.\">\n  \
         <style>{STYLE}\n  </style>\n  <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\" rx=\"10\"/>\n"
    );
    let mut text = |x: u32, y: u32, class: &str, text: &str| {
        writeln!(svg, r#"  <text x="{x}" y="{y}" class="{class}">{}</text>"#, escape(text))
            .unwrap();
    };
    text(
        MARGIN,
        34,
        "title",
        "From container to container, compared with the kernel's VXLAN device",
    );
    let method = format!("Ratios to kernel VXLAN in the same round: {}.", results.method());
    text(
        MARGIN,
        56,
        "soft",
        &format!("{method} Thin lines: the middle half of them. Blue: a plugin in the path."),
    );
    text(MARGIN, height - 20, "soft", &results.machine.to_string());
    for (i, panel) in (0..).zip(&panels) {
        let (column, line) = (i % 2, i / 2);
        let (x, y) = (MARGIN + column * COLUMN, TOP + line * panel_height);
        writeln!(svg, r#"  <g transform="translate({x} {y})">"#).unwrap();
        draw_panel(&mut svg, results, &variants, panel).unwrap();
        writeln!(svg, "  </g>").unwrap();
    }
    svg + "</svg>\n"
}

fn number(count: usize) -> u32 {
    count.try_into().expect("a plot has few rows")
}

fn draw_panel(
    svg: &mut String,
    results: &Results,
    variants: &[Variant],
    panel: &Panel,
) -> std::fmt::Result {
    let Panel { title, less_is_better, unit, load, quantity } = panel;
    let hint = if *less_is_better { " · less is better" } else { "" };
    writeln!(
        svg,
        r#"    <text y="20"><tspan class="head">{}</tspan><tspan class="soft">{hint}</tspan></text>"#,
        escape(title)
    )?;
    let bottom = 32 + number(variants.len()) * ROW;
    for (multiple, class) in [(0.0, "grid"), (1.0, "base"), (CUT, "grid")] {
        let x = position(multiple);
        writeln!(svg, r#"    <path class="{class}" d="M{x:.1} 30V{bottom}"/>"#)?;
    }
    for (i, &variant) in (0..).zip(variants) {
        let Some(value) = results.median(*load, variant, quantity) else { continue };
        let Some(ratios) = results.ratios(*load, variant, Variant::Vxlan, quantity) else {
            continue;
        };
        let (lower, ratio) = (quantile(ratios.clone(), 0.25), median(ratios.clone()));
        let upper = quantile(ratios, 0.75);
        let top = 34 + i * ROW;
        let (middle, baseline) = (f64::from(top) + f64::from(BAR) / 2.0, top + 11);
        let length = position(ratio) - position(0.0);
        let ours = if class(variant) == "plugin" { " ours" } else { "" };
        writeln!(
            svg,
            r#"    <text x="{}" y="{baseline}" class="label{ours}">{}</text>"#,
            BARS - 8,
            variant.short()
        )?;
        writeln!(
            svg,
            r#"    <rect x="{BARS}" y="{top}" width="{length:.1}" height="{BAR}" rx="1.5" class="{}"/>"#,
            class(variant)
        )?;
        if ratio > CUT {
            let x = position(CUT) - 14.0;
            writeln!(svg, r#"    <path class="cut" d="M{x:.1} {}l5 -17"/>"#, top + BAR + 2)?;
        }
        let (from, to) = (position(lower), position(upper));
        if variant != Variant::Vxlan && to - from >= 1.0 && ratio <= CUT {
            writeln!(svg, r#"    <path class="range" d="M{from:.1} {middle}H{to:.1}"/>"#)?;
        }
        let ratio_end = VALUES - 92;
        writeln!(
            svg,
            r#"    <text x="{ratio_end}" y="{baseline}" class="value{ours}">{} ×</text>"#,
            digits(ratio)
        )?;
        writeln!(
            svg,
            r#"    <text x="{VALUES}" y="{baseline}" class="unit">{} {unit}</text>"#,
            digits(value)
        )?;
    }
    Ok(())
}

/// Returns the x coordinate in a panel at which a bar of this ratio to kernel VXLAN ends.
fn position(multiple: f64) -> f64 {
    f64::from(BARS) + UNIT * multiple.min(CUT)
}

fn class(variant: Variant) -> &'static str {
    match variant {
        Variant::Bare | Variant::Vxlan => "kernel",
        Variant::Udp | Variant::VxlanTun => "plugin",
        Variant::Native => "native",
        Variant::Naive => "naive",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
