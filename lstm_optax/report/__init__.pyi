from .tensorboard import export_tensorboard as export_tensorboard
from .write import write_report as write_report
