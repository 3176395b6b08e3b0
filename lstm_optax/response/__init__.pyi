from ._explain import explain as explain
from .plot import response_figure as response_figure
from .responses import (
    DtypeResponse as DtypeResponse,
)
from .responses import (
    RateResponse as RateResponse,
)
from .responses import (
    Response as Response,
)
from .responses import (
    ScaleRange as ScaleRange,
)
from .responses import (
    ScaleResponse as ScaleResponse,
)
from .responses import (
    SpikeResponse as SpikeResponse,
)
from .table import response_notes as response_notes
from .table import response_table as response_table
