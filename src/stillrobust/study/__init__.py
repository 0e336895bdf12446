"""Studies: a file of axes is expanded into runs and cells. Finished work is kept.

``files`` reads study files, ``runs`` expands them, ``selection`` combines several. ``state`` and
``plan`` report what is finished and missing, ``workload`` makes jobs, ``execute`` runs them.
``explain`` compares two numbers. ``miniature`` replaces data, weights and steps with small ones.
"""

from stillrobust.study.files import find_study, read_study, shipped
from stillrobust.study.runs import StudyRun
from stillrobust.study.schema import Study, StudyProtocol
from stillrobust.study.selection import Selection, load_selection, paper_studies, select
from stillrobust.study.state import RunState, Site, run_states

__all__ = [
    "RunState",
    "Selection",
    "Site",
    "Study",
    "StudyProtocol",
    "StudyRun",
    "find_study",
    "load_selection",
    "paper_studies",
    "read_study",
    "run_states",
    "select",
    "shipped",
]
