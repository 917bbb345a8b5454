"""URLs for tests: ways to write what must not be asked, and plain ones that may be."""

from __future__ import annotations

REFUSED_URLS = (
    # Loopback, in every notation that some parser takes for it.
    "https://127.0.0.1/", "https://127.0.0.1:8443/x", "https://127.1/", "https://127.0.1/",
    "https://2130706433/", "https://0x7f000001/", "https://0x7f.0.0.1/", "https://0x7f.1/",
    "https://017700000001/", "https://0177.0.0.1/", "https://0177.0.0.01/", "https://127.000.0.1/",
    "https://0/", "https://0.0.0.0/", "https://00000177.0.0.1/", "https://127.0.0.1./",
    "https://%31%32%37.0.0.1/", "https://localhost/", "https://LOCALHOST/", "https://localhost./",
    "https://a.localhost/", "https://localhost.localdomain/",
    # The same in version 6.
    "https://[::1]/", "https://[0:0:0:0:0:0:0:1]/", "https://[::]/", "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/", "https://[::127.0.0.1]/", "https://[::ffff:0:127.0.0.1]/",
    "https://[64:ff9b::127.0.0.1]/", "https://[64:ff9b:1::7f00:1]/", "https://[2002:7f00:1::]/",
    "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/", "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/", "https://[fc00::1]/", "https://[fd00:ec2::254]/",
    "https://[fec0::1]/", "https://[ff02::1]/", "https://[2001:db8::1]/", "https://::1/",
    "https://[127.0.0.1]/", "https://[::1/", "https://[gggg::1]/",
    # Other networks, and the metadata of clouds.
    "https://10.0.0.1/", "https://172.16.0.1/", "https://192.168.1.1/", "https://100.64.0.1/",
    "https://169.254.169.254/latest/meta-data/", "https://2852039166/", "https://0xa9fea9fe/",
    "https://168.63.129.16/", "https://100.100.100.200/", "https://192.0.0.192/",
    "https://metadata.google.internal/", "https://metadata/", "https://instance-data/",
    "https://instance-data.ec2.internal/", "https://224.0.0.1/", "https://255.255.255.255/",
    "https://198.18.0.1/", "https://192.88.99.1/",
    # Names that are nobody's in public.
    "https://intranet/", "https://printer.local/", "https://router.lan/", "https://db.corp/",
    "https://x.home.arpa/", "https://kubernetes.default.svc.cluster.local/", "https://a.onion/",
    "https://1.0.0.127.in-addr.arpa/", "https://example.test/", "https://a.1/", "https://a.0x7f/",
    # Authorities that two parsers read in two ways.
    "https://example.com@127.0.0.1/", "https://user:secret@example.com/", "https://example.com./",
    "https://example.com\\@127.0.0.1/", "https:/\\127.0.0.1/", "https://example.com#@127.0.0.1/",
    "https://127.0.0.1#.example.com/", "https://example.com:80:443/", "https://exa mple.com/",
    "https://example.com\t/", "https://example.com/\r\nHost: x", "https://example.com\n",
    " https://example.com/", "https:///example.com/", "https:example.com", "//example.com/",
    "https://-a.example.com/", "https://a..example.com/", "https://.example.com/", "https://./",
    "https://exa_mple.com/", "https://" + "a" * 64 + ".com/", "https://" + "a." * 130 + "com/",
    # Letters that only look like others, and what some parsers make of them.
    "https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/", "https://①②⑦.⓪.⓪.①/", "https://127。0。0。1/", "https://１２７.0.0.1/",
    "https://exämple.com/", "https://example.com/ä", "https://loc\u00adalhost/",
    "https://example.com\u2024evil.com/",
    # Schemes and ports.
    "http://example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/",
    "javascript:alert(1)", "data:text/plain,x", "unix:///run/docker.sock", "example.com", "",
    "https://", "https://example.com:22/", "https://example.com:25/", "https://example.com:80/",
    "https://example.com:0/", "https://example.com:65536/", "https://example.com:-1/",
    "https://example.com:0443/", "https://example.com:/", "https://example.com:443x/",
    "https://example.com/" + "a" * 2_048,
)  # fmt: skip
"""Refused as they are written, before anybody asks what a name stands for."""

PUBLIC_URLS = (
    "https://example.com", "https://example.com/", "https://hooks.example.com/a/b?c=d",
    "https://example.com:443/", "https://example.com:8443/", "https://example.com:1024/x",
    "https://xn--exmple-cua.com/", "https://8.8.8.8/", "https://[2606:4700::1111]/",
    "https://a-b.c1.example.co.uk/~x/(y)?z=%2F", "HTTPS://EXAMPLE.COM/",
)  # fmt: skip
