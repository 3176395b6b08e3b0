from ._advise import advise as advise
from .advice.finding import Finding as Finding
from .advice.table import findings_table as findings_table
from .argument_kinds import HyperParameter as HyperParameter
from .constraints import OptionError as OptionError
from .explain_by_name import explain_optimizers as explain_optimizers
from .gradient_plot import gradient_figure as gradient_figure
from .hyper_parameters import hyper_parameters_of as hyper_parameters_of
from .keeper import Diverged as Diverged
from .loading import LoadedRun as LoadedRun
from .loading import load_run as load_run
from .loss_plot import loss_figure as loss_figure
from .options import (
    SampleConfig as SampleConfig,
)
from .options import (
    TrainConfig as TrainConfig,
)
from .progress import TrainScreen as TrainScreen
from .sample import sample_text as sample_text
from .tables import loss_table as loss_table
from .tables import plan_table as plan_table
from .train import (
    Observer as Observer,
)
from .train import (
    TrainResult as TrainResult,
)
from .train import (
    train_language_model as train_language_model,
)
