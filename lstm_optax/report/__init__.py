"""Pictures and tables of what was recorded; this room reads plain records and numbers only."""

from lstm_optax.report.bench_grids import bench_means
from lstm_optax.report.bench_plots import bench_figure, draw_bench
from lstm_optax.report.bench_screen import BenchScreen
from lstm_optax.report.bench_text import bench_markdown, bench_tables, fill_bench_page
from lstm_optax.report.evidence import study_table
from lstm_optax.report.gradient_plots import draw_gradients, gradient_figure
from lstm_optax.report.plots import draw_losses, loss_figure
from lstm_optax.report.progress import TrainScreen
from lstm_optax.report.response_plots import draw_responses, response_figure
from lstm_optax.report.responses import response_notes, response_table
from lstm_optax.report.tables import loss_table, plan_table

__all__ = [
    "BenchScreen",
    "TrainScreen",
    "bench_figure",
    "bench_markdown",
    "bench_means",
    "bench_tables",
    "draw_bench",
    "draw_gradients",
    "draw_losses",
    "draw_responses",
    "fill_bench_page",
    "gradient_figure",
    "loss_figure",
    "loss_table",
    "plan_table",
    "response_figure",
    "response_notes",
    "response_table",
    "study_table",
]
