"""HTTP/2 and gRPC by hand, over one socket: enough to call an agent, and to send it what no library would.

Frames: RFC 9113. Header compression: RFC 7541, sent as literals without indexing, received with the static table and
the Huffman code (of the characters that occur in headers) and without a dynamic table, which SETTINGS forbid.
"""
import socket
import struct
import urllib.parse

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 0, 1, 2, 3, 4, 5
RESOURCE_EXHAUSTED, FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 8, 9, 11, 12, 13, 14

STATIC = """:authority :method :method :path :path :scheme :scheme :status :status :status :status :status :status :status
accept-charset accept-encoding accept-language accept-ranges accept access-control-allow-origin age allow authorization
cache-control content-disposition content-encoding content-language content-length content-location content-range
content-type cookie date etag expect expires from host if-match if-modified-since if-none-match if-range
if-unmodified-since last-modified link location max-forwards proxy-authenticate proxy-authorization range referer refresh
retry-after server set-cookie strict-transport-security transfer-encoding user-agent vary via www-authenticate""".split()
STATIC_VALUES = {8: "200", 9: "204", 10: "206", 11: "304", 12: "400", 13: "404", 14: "500"}

# The code is canonical: symbols in the order of code length, then value (RFC 7541, appendix B).
HUFFMAN_SYMBOLS = [(5, "012aceiost"), (6, " %-./3456789=A_bdfghlmnpru"), (7, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"), (8, "&*,;XZ"),
                   (10, "!\"()?"), (11, "'+|"), (12, "#>"), (13, "\0$@[]~"), (14, "^}"), (15, "<`{")]


def _huffman_table():
    table, code, last = {}, 0, 5
    for length, symbols in HUFFMAN_SYMBOLS:
        code <<= length - last
        last = length
        for c in symbols:
            table[(length, code)] = c
            code += 1
    return table


HUFFMAN = _huffman_table()


def huffman_decode(data):
    out, code, length = [], 0, 0
    for byte in data:
        for bit in range(7, -1, -1):
            code, length = code << 1 | byte >> bit & 1, length + 1
            if (length, code) in HUFFMAN:
                out.append(HUFFMAN[(length, code)])
                code, length = 0, 0
    if length > 7 or code != (1 << length) - 1:
        raise ValueError("a header with a character that is not in the table here")
    return "".join(out)


def _int(data, at, bits):
    mask = (1 << bits) - 1
    value, at = data[at] & mask, at + 1
    if value < mask:
        return value, at
    shift = 0
    while True:
        value, more, at = value + ((data[at] & 127) << shift), data[at] & 128, at + 1
        shift += 7
        if not more:
            return value, at


def _text(data, at):
    coded = data[at] & 128
    n, at = _int(data, at, 7)
    raw = data[at:at + n]
    return (huffman_decode(raw) if coded else raw.decode("latin-1")), at + n


def decode_headers(data):
    headers, at = {}, 0
    while at < len(data):
        if data[at] & 128:
            index, at = _int(data, at, 7)
            headers[STATIC[index - 1]] = STATIC_VALUES.get(index, "")
            continue
        if data[at] & 0xe0 == 0x20:  # size of the dynamic table
            _, at = _int(data, at, 5)
            continue
        index, at = _int(data, at, 6 if data[at] & 0x40 else 4)
        if index:
            name = STATIC[index - 1]
        else:
            name, at = _text(data, at)
        headers[name], at = _text(data, at)
    return headers


def _literal(text):
    raw = text.encode() if isinstance(text, str) else text
    out, n = bytearray(), len(raw)
    if n < 127:
        out.append(n)
    else:
        out.append(127)
        n -= 127
        while n >= 128:
            out.append(n & 127 | 128)
            n >>= 7
        out.append(n)
    return bytes(out) + raw


def encode_headers(headers):
    return b"".join(b"\0" + _literal(k) + _literal(v) for k, v in headers)


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def call_headers(path, authority="localhost", timeout=None, method="POST", content_type="application/grpc"):
    headers = [(":method", method), (":scheme", "http"), (":path", path), (":authority", authority),
               ("content-type", content_type), ("te", "trailers")]
    return headers + ([("grpc-timeout", timeout)] if timeout else [])


class Closed(Exception):
    """The other side ended the connection, or the stream (error: HTTP/2's code)."""

    def __init__(self, text, error=None):
        super().__init__(text)
        self.error = error


class Connection:
    """One HTTP/2 connection; one call at a time."""

    def __init__(self, address, timeout=20.0):
        host, port = address.rsplit(":", 1)
        self.address = address
        self.socket = socket.create_connection((host, int(port)), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.stream = -1
        self.window, self.stream_window, self.initial = 65535, 65535, 65535
        # no dynamic table, large windows: the client here reads everything at once
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HIHI", 1, 0, 4, 2 ** 30)) +
                            frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2 ** 30)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def _read(self, n):
        while len(self.buffer) < n:
            try:
                data = self.socket.recv(65536)
            except ConnectionError as e:
                raise Closed(str(e)) from e
            if not data:
                raise Closed("end of the connection")
            self.buffer += data
        out = bytes(self.buffer[:n])
        del self.buffer[:n]
        return out

    def read_frame(self):
        """(kind, flags, stream, payload); answers SETTINGS and PING and keeps the windows."""
        head = self._read(9)
        payload = self._read(int.from_bytes(head[:3], "big"))
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7fffffff
        if kind == SETTINGS and not flags & ACK:
            for i in range(0, len(payload), 6):
                name, value = struct.unpack(">HI", payload[i:i + 6])
                if name == 4:
                    self.stream_window += value - self.initial
                    self.initial = value
            self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            more = struct.unpack(">I", payload)[0]
            if stream == 0:
                self.window += more
            elif stream == self.stream:
                self.stream_window += more
        return kind, flags, stream, payload

    def open(self, path, end=False, **kwargs):
        """Sends the headers of a new call; returns its stream id."""
        self.stream += 2
        self.stream_window = self.initial
        self.headers, self.body, self.is_over = {}, bytearray(), False
        self.send(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), self.stream,
                        encode_headers(call_headers(path, self.address, **kwargs))))
        return self.stream

    def send_data(self, data, end=True):
        """Within the windows of the other side. Stops when the answer has come before everything was sent."""
        at = 0
        while True:
            n = min(len(data) - at, 16384, self.window, self.stream_window)
            if n > 0 or len(data) == 0:
                last = at + n == len(data)
                self.send(frame(DATA, END_STREAM if last and end else 0, self.stream, data[at:at + n]))
                at, self.window, self.stream_window = at + n, self.window - n, self.stream_window - n
                if last:
                    return
            else:
                self._step()
                if self.is_over:
                    return

    def _step(self):
        kind, flags, stream, payload = self.read_frame()
        if kind == GOAWAY and struct.unpack(">I", payload[4:8])[0] != 0:
            raise Closed(f"GOAWAY {payload[8:]!r}", struct.unpack(">I", payload[4:8])[0])
        if stream != self.stream:
            return
        if kind == HEADERS:
            while not flags & END_HEADERS:
                _, more, _, rest = self.read_frame()
                payload, flags = payload + rest, flags | more & END_HEADERS
            if flags & PADDED:
                payload = payload[1:len(payload) - payload[0]]
            if flags & PRIORITY:
                payload = payload[5:]
            self.headers.update(decode_headers(payload))
        elif kind == DATA:
            self.body += payload[1:len(payload) - payload[0]] if flags & PADDED else payload
        elif kind == RST_STREAM:
            self.is_over = True
            self.headers.setdefault("rst", str(struct.unpack(">I", payload)[0]))
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.is_over = True

    def answer(self):
        """(gRPC status, text, [messages]) of the call under way."""
        while not self.is_over:
            self._step()
        if "grpc-status" not in self.headers:
            raise Closed(f"no gRPC status: {self.headers}", int(self.headers.get("rst", 0)))
        messages, body = [], bytes(self.body)
        while body:
            n = int.from_bytes(body[1:5], "big")
            messages.append(body[5:5 + n])
            body = body[5 + n:]
        return int(self.headers["grpc-status"]), urllib.parse.unquote(self.headers.get("grpc-message", "")), messages

    def call(self, path, message, **kwargs):
        self.open(path, **kwargs)
        self.send_data(b"\0" + struct.pack(">I", len(message)) + message)
        return self.answer()


# ---- protobuf ----

def varint(value):
    value &= 2 ** 64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(*fields):
    """encode((1, b"key"), (3, 7), ...): bytes and text are length-delimited, numbers varints; None is left out."""
    out = b""
    for number, value in fields:
        if value is None:
            continue
        if isinstance(value, str):
            value = value.encode()
        if isinstance(value, bytes):
            out += varint(number << 3 | 2) + varint(len(value)) + value
        else:
            out += varint(number << 3) + varint(int(value))
    return out


def decode(data):
    """{field number: [values]}"""
    def number(at):
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                return value, at
    out, at = {}, 0
    while at < len(data):
        tag, at = number(at)
        if tag & 7 == 0:
            value, at = number(at)
        elif tag & 7 == 1:
            value, at = int.from_bytes(data[at:at + 8], "little"), at + 8
        elif tag & 7 == 5:
            value, at = int.from_bytes(data[at:at + 4], "little"), at + 4
        else:
            n, at = number(at)
            value, at = data[at:at + n], at + n
        out.setdefault(tag >> 3, []).append(value)
    return out


class Refused(Exception):
    def __init__(self, status, text):
        super().__init__(f"status {status}: {text}")
        self.status, self.text = status, text


class Kv:
    """etcd's KV service, on one connection to one node."""

    def __init__(self, address, timeout=20.0):
        self.connection = Connection(address, timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def call(self, method, message, service="etcdserverpb.KV", **kwargs):
        status, text, messages = self.connection.call(f"/{service}/{method}", message, **kwargs)
        if status != OK:
            raise Refused(status, text)
        return decode(messages[0])

    def put(self, key, value, **kwargs):
        """The revision."""
        answer = self.call("Put", encode((1, key), (2, value)), **kwargs)
        return decode(answer[1][0])[3][0]

    def get(self, key, serializable=False, revision=0, **kwargs):
        """(value, mod revision), or (None, 0)."""
        answer = self.call("Range", encode((1, key), (4, revision or None), (7, 1 if serializable else None)), **kwargs)
        if 2 not in answer:
            return None, 0
        kv = decode(answer[2][0])
        return kv.get(5, [b""])[0], kv[3][0]

    def range(self, key, end, **kwargs):
        """{key: (value, mod revision)}"""
        answer = self.call("Range", encode((1, key), (2, end)), **kwargs)
        found = [decode(kv) for kv in answer.get(2, [])]
        return {kv[1][0]: (kv.get(5, [b""])[0], kv[3][0]) for kv in found}


def put(address, key, value, timeout=20.0):
    with Kv(address, timeout) as kv:
        return kv.put(key, value)


def get(address, key, serializable=False, timeout=20.0):
    with Kv(address, timeout) as kv:
        return kv.get(key, serializable)
