from .tables import study_table as study_table
