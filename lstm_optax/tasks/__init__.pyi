from .task import Task as Task
