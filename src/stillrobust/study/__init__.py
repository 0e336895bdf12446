"""Studies: axes and differences -> runs -> cells; what is missing is done, what is done is kept.

``schema`` reads study files, ``selection`` says which are meant, ``state`` how far they are,
``plan`` what is missing and what it costs, ``execute`` does it, ``explain`` says why two numbers
differ, ``miniature`` puts small stand-ins for what is large.
"""

from stillrobust.study.schema import Circumstances, Study, StudyRun, find_study, read_study, shipped
from stillrobust.study.selection import Selection, paper_studies, recall, select
from stillrobust.study.state import RunState, Site, states

__all__ = [
    "Circumstances",
    "RunState",
    "Selection",
    "Site",
    "Study",
    "StudyRun",
    "find_study",
    "paper_studies",
    "read_study",
    "recall",
    "select",
    "shipped",
    "states",
]
