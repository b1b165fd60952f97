import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from mlutils import plot


def luminance(color):
    """Relative luminance of an sRGB colour, as the contrast rules of the web define it."""
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


def test_colors_go_from_dark_to_light_and_the_first_can_be_read_on_white():
    grey = [luminance(mpl.colors.to_rgb(color)) for color in plot.COLORS]
    assert grey == sorted(grey)
    assert all(1.05 / (value + 0.05) >= 3 for value in grey[:3])  # contrast of large text


def test_style_is_applied_and_valid():
    plot.use_style()
    for key, value in plot.STYLE.items():
        assert mpl.rcParams[key] == (list(value) if isinstance(value, tuple) else value), key


def test_label_line_writes_beside_the_point():
    fig, ax = plt.subplots()
    plot.label_line(ax, 1.0, 2.0, "MAML", "#0072b2")
    (label,) = ax.texts
    assert (label.get_text(), label.xy, label.get_color()) == ("MAML", (1.0, 2.0), "#0072b2")
    plt.close(fig)


def test_table_as_markdown_and_as_text():
    table = plot.Table(["", "error"], [["MAML", 0.5], ["no adaptation", "3.0"]])
    assert table._repr_markdown_() == (
        "|  | error |\n|---|---:|\n| MAML | 0.5 |\n| no adaptation | 3.0 |"
    )
    assert repr(table) == "               error\nMAML           0.5\nno adaptation  3.0"


def test_table_with_a_ragged_row_raises():
    with pytest.raises(ValueError, match="1 cells, the header 2"):
        plot.Table(["", "error"], [["MAML"]])
