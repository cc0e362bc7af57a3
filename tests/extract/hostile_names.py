"""Names of files that try to leave their folder, to be taken for another kind of file, or to steer a terminal."""

from __future__ import annotations

from pdsync.extract.download_folder import MANIFEST

_RESERVED = [name for one in ("CON", "PRN", "AUX", "NUL", "COM1", "COM9", "LPT1") for name in (one, f"{one}.txt")]
_RESERVED += [f"a.{one}" for one in ("con", "nul", "com1")] + ["CONIN$", "CLOCK$", "desktop.ini", "Thumbs.db"]
_WAYS_UP = [
    *(f"{up * n}{what}" for up in ("../", "..\\", "%2e%2e/", "..%2f", "....//")
    for n in (1, 3) for what in ("x", "etc/passwd")),
    "/etc/passwd", "//host/share", "\\\\host\\share\\x.exe", "C:\\x.txt", "C:x.txt", "file:///etc/passwd",
    "~/.ssh/id_rsa",
    ".", "..", "...", "", " ", ".ssh", ".bashrc", "-rf", "--help", "a/b", "a\\b", "a/../../b.txt", MANIFEST,
    f".{MANIFEST}.part",
]  # fmt: skip
_ODD = [
    "x\0.txt", "x\n.txt", "x\r\n.txt", "x\t.pdf", "x\x1b[31m.pdf", "x\x7f.pdf", "x\x85.pdf", "x\u2028.pdf",
    "x\ufeff.pdf",
    "gpj\u202e.exe", "x.\u202egpj", "x\u2066.pdf\u2069", "x.p\u200bdf", "x.\u200epdf", "e\u0301.pdf", "ｘ.ｐｄｆ",
    "x.ﬁ",
    "😀.😀",
    "\ud800.pdf", "x.\udfff", "x.pdf.", "x.pdf ", "x.pdf . .", "x.pdf::$DATA", "x.txt:stream", "x|y", "x>y", "x<y",
    'x"y', "x*y", "x?y",
    "$(reboot)", "`reboot`", "x;reboot", "x & calc.exe", "=cmd|' /C calc'!A0", "a" * 300, "a" * 300 + ".pdf",
    "x." + "b" * 300,
    "é" * 200 + ".pdf", "x." + "é" * 200, "x.TAR.GZ", "x.tar.gz", "x.tar", ".tar.gz", "x.tar.", "x..pdf", "x.pdf/",
    "x.pdf\\",
    "x.123", "x.1a2B", "x.php;.jpg", "x.jpg%00.php", "x.a-b", "x.a_b", "x.a b", "x.K", "x.ſ", "x.İ", "%00", "%s%s%n",
    "{0}",
]  # fmt: skip
HOSTILE = _RESERVED + _WAYS_UP + _ODD
