from .surfaces import surface as surface
from .task import Task as Task
