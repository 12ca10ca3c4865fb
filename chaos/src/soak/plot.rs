//! The plots of a run: one HTML page with a plot of each chart. The page loads no other file.

use std::fmt::Write;

use anyhow::anyhow;
use plotters::prelude::*;

use super::series::Series;

/// Width and height of a plot, in pixels.
const SIZE: (u32, u32) = (720, 300);

const FONT: (&str, i32) = ("sans-serif", 13);

/// The whole page. Each element of `charts` is a plot with the lines of one chart.
///
/// # Errors
/// Returns an error when a plot cannot be drawn.
pub fn page(title: &str, charts: &[Vec<&Series>]) -> anyhow::Result<String> {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n\
         <h1>{title}</h1>\n"
    );
    for lines in charts {
        let Some(first) = lines.first() else { continue };
        let mut svg = String::new();
        draw(&mut svg, lines).map_err(|error| anyhow!("a plot: {error}"))?;
        writeln!(page, "<figure><figcaption>{}</figcaption>\n{svg}</figure>", first.chart)?;
    }
    Ok(page)
}

fn draw(svg: &mut String, lines: &[&Series]) -> Result<(), Box<dyn std::error::Error>> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let end = points().map(|(time, _)| time / 60.0).fold(0.1, f64::max);
    let top = points().map(|(_, value)| *value).fold(1.0, f64::max) * 1.1;
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("minutes")
        .label_style(FONT)
        .draw()?;
    for (number, line) in lines.iter().enumerate() {
        let colour = Palette99::pick(number).to_rgba();
        let points = line.points.iter().map(|(time, value)| (time / 60.0, *value));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(1)))?
            .label(&line.line)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font(FONT)
        .draw()?;
    area.present()?;
    drop(chart);
    Ok(())
}
