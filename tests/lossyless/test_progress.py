"""Progress of loops is printed in logs, too."""

from lossyless.progress import progress


def test_progress_is_printed_line_by_line_without_a_terminal(capsys):
    assert list(progress(range(5), "numbers", seconds=0)) == list(range(5))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and " 20%" in lines[0] and " 80%" in lines[-1]
    assert list(progress(range(5), "numbers")) == list(range(5))
    assert capsys.readouterr().err == ""  # a quick loop
