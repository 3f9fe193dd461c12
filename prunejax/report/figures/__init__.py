"""Matplotlib figures, each a function of a study; a panel without its models names the reason.

Where a panel's points are test images, point i is image i and the axes' `gid` is
`style.point_to(...)`: the models with predictions that the report shows next to the image.
"""

from prunejax.report.figures.all_figures import Picture, make_figures, picture_makers
from prunejax.report.figures.bars import figure_4, figure_7
from prunejax.report.figures.curves import Curves, training_curves
from prunejax.report.figures.embedding import figure_1, figure_5
from prunejax.report.figures.gallery import agreement, figure_6
from prunejax.report.figures.scatter import figure_2, figure_3
from prunejax.report.figures.style import in_style

__all__ = [
    "Curves",
    "Picture",
    "agreement",
    "figure_1",
    "figure_2",
    "figure_3",
    "figure_4",
    "figure_5",
    "figure_6",
    "figure_7",
    "in_style",
    "make_figures",
    "picture_makers",
    "training_curves",
]
