from streams.pyav.decoders import KINDS, decodable


def test_the_wheel_of_pyav_decodes_every_kind():
    assert decodable() == list(KINDS)


def test_a_kind_without_a_decoder_is_left_out():
    assert decodable({"h264": ("h264",), "av1": ("no_such", "libdav1d"), "other": ("no_such",)}) == ["h264", "av1"]
