from tests.worldmodel.heads.two_views import TwoViewsSuite
from worldmodel.heads.arrow_of_time import ArrowOfTime


class TestArrowOfTime(TwoViewsSuite):
    head = ArrowOfTime
