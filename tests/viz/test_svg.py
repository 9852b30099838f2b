"""Line charts as SVG."""

import re
import xml.etree.ElementTree as ElementTree

from tag2mask.viz.svg import line_chart, line_style, running_mean, thin


def test_losses_over_powers_of_ten_get_a_logarithmic_axis() -> None:
    svg, logarithmic = line_chart([("a", 0, [(0, 50.0), (1, 1.0)])])
    assert logarithmic
    assert all(f">{tick}</text>" in svg for tick in (1, 2, 5, 10, 20, 50))
    assert not line_chart([("a", 0, [(0, 100.0), (1, 0.0)])])[1]
    assert not line_chart([("a", 0, [(0, 100.0), (1, 4.0)])])[1]


def test_running_means_and_thinning_by_hand() -> None:
    values = [(i, float(i % 2)) for i in range(40)]
    assert running_mean(values) == [(i, 0.5) for i in range(39)]
    assert running_mean(values[:39]) == values[:39]
    assert thin(values, 4) == [values[0], values[10], values[20], values[30], values[39]]
    assert thin(values[:1]) == values[:1]


def test_the_ninth_line_has_other_dashes_than_the_first() -> None:
    assert len({line_style(number) for number in range(24)}) == 24


def test_a_chart_is_whole_xml_with_escaped_names_text_and_colours_of_the_page() -> None:
    name = "<b> & '猫' \"x\""
    svg, _ = line_chart([(name, 0, [(0, 0.5), (7, 0.25)]), ("many", 9, [(i, 0.5) for i in range(100)])], scale=100)
    root = ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" '))
    titles = [title.text for title in root.iter("title")]
    assert "<b>" not in svg
    assert titles == [name, f"{name}: 50 at iteration 0", f"{name}: 25 at iteration 7", "many"]
    assert "iteration</text>" in svg
    assert all(part in svg for part in ("var(--s0)", "var(--s1)", "stroke-dasharray"))
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert "url(" not in svg


def test_pale_raw_values_are_drawn_behind_few_lines_only() -> None:
    values = [(i, float(i % 2)) for i in range(100)]
    assert line_chart([("a", 0, values)])[0].count("stroke-opacity: 0.3") == 1
    assert "stroke-opacity" not in line_chart([(str(n), n, values) for n in range(5)])[0]
