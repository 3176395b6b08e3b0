from .adaptive_softmax import AdaptiveSoftmax as AdaptiveSoftmax
from .language import LanguageModel as LanguageModel
from .losses import activation_regularizer as activation_regularizer
from .losses import sequence_losses as sequence_losses
from .losses import temporal_activation_regularizer as temporal_activation_regularizer
from .losses import token_losses as token_losses
from .sequence_model import SequenceModel as SequenceModel
