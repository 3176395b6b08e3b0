from .study_records import StudyError as StudyError
from .study_records import StudyRecords as StudyRecords
from .study_records import TrialRecords as TrialRecords
from .study_records import read_study as read_study
from .tables import study_table as study_table
