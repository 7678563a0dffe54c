from tests.worldmodel.heads.two_views import TwoViewsSuite
from worldmodel.heads.speed import Speed


class TestSpeed(TwoViewsSuite):
    head = Speed
