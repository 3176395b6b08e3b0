from . import bench as bench
from . import checkpoints as checkpoints
from . import data as data
from . import gates as gates
from . import interop as interop
from . import lstm as lstm
from . import models as models
from . import optimizers as optimizers
from . import presets as presets
from . import report as report
from . import reproductions as reproductions
from . import response as response
from . import runs as runs
from . import saddles as saddles
from . import studies as studies
from . import tasks as tasks
from . import training as training
from . import transforms as transforms
from ._version import __version__ as __version__
from .checkpoints import (
    CheckpointError as CheckpointError,
)
from .checkpoints import (
    Checkpoints as Checkpoints,
)
from .checkpoints import (
    SavedParams as SavedParams,
)
from .checkpoints import (
    read_params as read_params,
)
from .gates import (
    find_gates as find_gates,
)
from .gates import (
    gate_slice as gate_slice,
)
from .lstm import (
    BACKENDS as BACKENDS,
)
from .lstm import (
    LSTM as LSTM,
)
from .lstm import (
    CotangentClip as CotangentClip,
)
from .lstm import (
    CotangentNormClip as CotangentNormClip,
)
from .lstm import (
    GradientFlow as GradientFlow,
)
from .lstm import (
    LSTMParams as LSTMParams,
)
from .lstm import (
    LSTMState as LSTMState,
)
from .lstm import (
    LSTMWeights as LSTMWeights,
)
from .lstm import (
    clip_cotangent as clip_cotangent,
)
from .lstm import (
    clip_cotangent_norm as clip_cotangent_norm,
)
from .lstm import (
    init_chrono as init_chrono,
)
from .lstm import (
    init_forget_bias as init_forget_bias,
)
from .lstm import (
    init_orthogonal as init_orthogonal,
)
from .lstm import (
    lstm_cell as lstm_cell,
)
from .lstm import (
    lstm_sequence as lstm_sequence,
)
from .lstm import (
    probe as probe,
)
from .lstm import (
    unavailable_backends as unavailable_backends,
)
from .lstm import (
    vanishing_penalty as vanishing_penalty,
)
from .models import (
    LanguageModel as LanguageModel,
)
from .models import (
    SequenceModel as SequenceModel,
)
from .models import (
    activation_regularizer as activation_regularizer,
)
from .models import (
    sequence_losses as sequence_losses,
)
from .models import (
    temporal_activation_regularizer as temporal_activation_regularizer,
)
from .models import (
    token_losses as token_losses,
)
from .optimizers import (
    OPTIMIZERS as OPTIMIZERS,
)
from .optimizers import (
    adam as adam,
)
from .optimizers import (
    awd_sgd as awd_sgd,
)
from .optimizers import (
    gate_muon as gate_muon,
)
from .optimizers import (
    momentum_sgd as momentum_sgd,
)
from .optimizers import (
    nadam as nadam,
)
from .optimizers import (
    nadamw as nadamw,
)
from .optimizers import (
    nesterov_sgd as nesterov_sgd,
)
from .optimizers import (
    rmsprop as rmsprop,
)
from .optimizers import (
    rmsprop_momentum as rmsprop_momentum,
)
from .optimizers import (
    sgd as sgd,
)
from .response import (
    explain as explain,
)
from .runs import (
    TrainConfig as TrainConfig,
)
from .runs import (
    advise as advise,
)
from .runs import (
    load_run as load_run,
)
from .runs import (
    loss_figure as loss_figure,
)
from .runs import (
    sample_text as sample_text,
)
from .runs import (
    train_language_model as train_language_model,
)
from .studies import (
    compare as compare,
)
from .studies import (
    sweep as sweep,
)
from .tasks import (
    Task as Task,
)
from .training import (
    BatchSharding as BatchSharding,
)
from .training import (
    BatchStream as BatchStream,
)
from .training import (
    FitResult as FitResult,
)
from .training import (
    NonFiniteError as NonFiniteError,
)
from .training import (
    Rewind as Rewind,
)
from .training import (
    TrainState as TrainState,
)
from .training import (
    best_record as best_record,
)
from .training import (
    fit as fit,
)
from .training import (
    init_state as init_state,
)
from .training import (
    make_evaluate as make_evaluate,
)
from .training import (
    make_step as make_step,
)
from .training import (
    run_steps as run_steps,
)
from .transforms import (
    by_gate as by_gate,
)
from .transforms import (
    centered_mean_square as centered_mean_square,
)
from .transforms import (
    clip_by_global_norm as clip_by_global_norm,
)
from .transforms import (
    clip_by_norm_quantile as clip_by_norm_quantile,
)
from .transforms import (
    corrected_momentum as corrected_momentum,
)
from .transforms import (
    damped_momentum as damped_momentum,
)
from .transforms import (
    debias as debias,
)
from .transforms import (
    dozat_momentum as dozat_momentum,
)
from .transforms import (
    ema as ema,
)
from .transforms import (
    ema_average as ema_average,
)
from .transforms import (
    eval_params as eval_params,
)
from .transforms import (
    find_states as find_states,
)
from .transforms import (
    global_norm as global_norm,
)
from .transforms import (
    guard as guard,
)
from .transforms import (
    keep_dtype as keep_dtype,
)
from .transforms import (
    loss_scaling as loss_scaling,
)
from .transforms import (
    mean_square as mean_square,
)
from .transforms import (
    momentum as momentum,
)
from .transforms import (
    nesterov as nesterov,
)
from .transforms import (
    polyak_average as polyak_average,
)
from .transforms import (
    precondition as precondition,
)
from .transforms import (
    report_validation_loss as report_validation_loss,
)
from .transforms import (
    running_max as running_max,
)
from .transforms import (
    scale_by_learning_rate as scale_by_learning_rate,
)
from .transforms import (
    scale_by_rate_factor as scale_by_rate_factor,
)
from .transforms import (
    sum_square as sum_square,
)
from .transforms import (
    triggered_average as triggered_average,
)
