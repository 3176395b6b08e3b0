from .config import BenchConfig as BenchConfig
from .markdown import (
    bench_markdown as bench_markdown,
)
from .markdown import (
    bench_tables as bench_tables,
)
from .markdown import (
    fill_bench_page as fill_bench_page,
)
from .plot import bench_figure as bench_figure
from .progress import BenchScreen as BenchScreen
from .results import read_bench as read_bench
from .runner import benchmark as benchmark
from .tables import bench_means as bench_means
