"""Tables from strangers: every spelling of a CSV is read alike, and a wrong line is named."""

import csv
import io

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from acl_lib.datasets import ESC50, AudioFolder, FSDnoisy18k
from acl_lib.datasets.tables import below, read_rows

HEAD = "path,label\n"


@pytest.fixture
def table(tmp_path):
    """Writes bytes as a table beside two sounds, and gives its path."""
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, [0.1, -0.1] * 50, 8000)

    def write(content: bytes | str):
        path = tmp_path / "mine.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


PLAIN = "path,label\na.wav,dog\nb.wav,cat\n"
SPELLINGS = {
    "plain": PLAIN.encode(),
    "byte-order mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "Windows": PLAIN.replace("\n", "\r\n").encode(),
    "an old Macintosh": PLAIN.replace("\n", "\r").encode(),
    "no last end of line": PLAIN.rstrip().encode(),
    "empty lines": PLAIN.replace("\n", "\n\n").encode(),
    "quotes": b'"path","label"\n"a.wav","dog"\n"b.wav","cat"\n',
    "more columns": b"id,path,label,\xc3\xa9\n1,a.wav,dog,x\n2,b.wav,cat,\n",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_a_table_is_the_same_table(table, spelling):
    corpus = AudioFolder.open(table(SPELLINGS[spelling]))
    assert [(c.path.name, corpus.classes[c.label]) for c in corpus.clips] == [
        ("a.wav", "dog"),
        ("b.wav", "cat"),
    ]


WRONG = {  # content -> what the message says besides the name of the file
    "": "no column",
    "\n\n": "no column",
    "file;label\na.wav;dog\n": "no column",
    "path;label\na.wav;dog\n": "no column",
    HEAD: "no rows",
    HEAD + "a.wav\n": "line 2",
    HEAD + "a.wav,dog,and more\n": "line 2",
    HEAD + "a.wav,\n": "line 2.*label",
    HEAD + ",dog\n": "line 2.*path",
    HEAD + 'a.wav,"dog\nb.wav,cat\n': "line 3",
    HEAD + 'a.wav,"dog" and cat\n': "line 2",
    HEAD + "a.wav," + "d" * 200_000 + "\n": "line 2",
    "path,label,fold\na.wav,dog,one\n": "line 2.*'one'",
    "path,label,fold\na.wav,dog,-1\n": "line 2.*'-1'",
    "path,label,fold\na.wav,dog,1.5\n": "line 2",
    "path,label,fold\na.wav,dog,²\n": "line 2",
    "path,label,fold\na.wav,dog," + "9" * 5000 + "\n": "line 2",
}


@pytest.mark.parametrize("content", WRONG, ids=range(len(WRONG)))
def test_what_is_no_table_is_named_by_its_line(table, content):
    with pytest.raises(ValueError, match=rf"mine\.csv.*{WRONG[content]}"):
        AudioFolder.open(table(content))


@pytest.mark.parametrize("content", ["path,label\na.wav,h\xfcnd\n".encode("latin-1"), b"\xff\xfe"])
def test_another_encoding_is_named_with_what_to_do(table, content):
    with pytest.raises(ValueError, match=r"mine\.csv is not in UTF-8 .* save it as CSV UTF-8"):
        AudioFolder.open(table(content))


LEADING_OUT = [
    "../a.wav",
    "sub/../../a.wav",
    "..\\a.wav",
    "/etc/hostname",
    "//server/share/a.wav",
    "\\\\server\\share\\a.wav",
    "C:/a.wav",
    "C:\\a.wav",
    "c:a.wav",
    "a\0.wav",
    "..",
]


@pytest.mark.parametrize("name", LEADING_OUT)
def test_a_table_leads_nowhere_else(table, tmp_path, name):
    with pytest.raises(ValueError, match=r"mine\.csv, line 3: .* does not lie below"):
        AudioFolder.open(table(f"{HEAD}a.wav,dog\n{name},cat\n"))
    with pytest.raises(ValueError, match=r"row 7: .* does not lie below"):
        below(tmp_path, name.replace("\\", "/"), where="row 7")


def test_an_absolute_path_below_the_table_is_one_of_its_sounds(table, tmp_path):
    corpus = AudioFolder.open(table(f"{HEAD}{tmp_path / 'a.wav'},dog\nb.wav,cat\n"))
    assert [corpus.relative_path(clip) for clip in corpus.clips] == ["a.wav", "b.wav"]


@pytest.mark.parametrize("name", ["../../secret.wav", "/etc/hostname", "C:/a.wav"])
def test_published_corpora_are_read_with_the_same_care(tmp_path, name):
    meta = tmp_path / "FSDnoisy18k.meta"
    meta.mkdir()
    (meta / "train.csv").write_text(f"fname,label,manually_verified,noisy_small\n{name},A,1,0\n")
    (meta / "test.csv").write_text("fname,label\nb.wav,A\n")
    with pytest.raises(ValueError, match=r"train\.csv, line 2: .* does not lie below"):
        FSDnoisy18k.open(tmp_path, audio="optional")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text(
        f"filename,fold,target,category,esc10,src_file,take\n{name},1,0,dog,True,7,A\n"
    )
    with pytest.raises(ValueError, match=r"esc50\.csv, line 2: .* does not lie below"):
        ESC50.open(tmp_path, audio="optional")


WORD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@given(rows=st.lists(st.tuples(WORD, WORD, st.text(max_size=5)), max_size=8))
def test_what_a_writer_of_tables_writes_is_what_is_read(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "drawn.csv"
    written = io.StringIO(newline="")
    csv.writer(written).writerows([("path", "label", "more"), *rows])
    path.write_bytes(written.getvalue().encode("utf-8", "surrogatepass"))
    try:
        found = [tuple(row.values()) for _, row in read_rows(path, ("path", "label"))]
    except ValueError as error:  # a lone surrogate is no UTF-8
        assert "UTF-8" in str(error) and any("\ud800" <= c <= "\udfff" for c in written.getvalue())
    else:
        assert found == rows


@given(content=st.binary(max_size=300))
def test_any_bytes_are_rows_or_a_message(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "drawn.csv"
    path.write_bytes(b"path,label\n" + content)
    try:
        for where, row in read_rows(path, ("path", "label")):
            assert where.startswith(f"{path}, line ") and row["path"] and row["label"]
    except ValueError as error:
        assert str(path) in str(error)


def test_a_million_rows_are_read_row_by_row(tmp_path):
    path = tmp_path / "long.csv"
    with path.open("w") as file:
        file.write("path,label\n")
        file.writelines(f"{i}.wav,{i}\n" for i in range(1_000_000))
    rows = read_rows(path, ("path", "label"))
    first = next(rows)  # before the others were looked at
    assert first == (f"{path}, line 2", {"path": "0.wav", "label": "0"})
    assert sum(1 for _ in rows) == 999_999
