from tests.worldmodel.heads.two_views import TwoViewsSuite
from worldmodel.heads.correspondence import Correspondence


class TestCorrespondence(TwoViewsSuite):
    head = Correspondence
