from proving import prove


def test_25_million_users_are_opened_at_once_and_each_is_found():
    figures = prove("scale", 25_000_000, memory=False)
    assert isinstance(figures, dict), figures
    assert figures["opened_in_s"] < 1
    assert figures["private_mb"] < 100
    assert figures["lookups"] == figures["names_lookups"] == 1_000_000
    assert figures["us_per_place"] < 20
    assert figures["largest_file_gb"] > 4.3
    assert figures["disk_mb"] < 1_000
