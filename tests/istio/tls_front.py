"""TLS on 127.0.0.2:443 in front of a port on 127.0.0.1, as the LLM's provider has it.   tls_front.py CERTIFICATE KEY PORT

Prints the server name of each connection (SNI).
"""

import asyncio
import ssl
import sys


async def copy(reader, writer):
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def main(certificate, key, port):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = lambda _socket, name, _context: print("sni", name, flush=True)

    async def serve(reader, writer):
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", int(port))
        await asyncio.gather(copy(reader, upstream_writer), copy(upstream_reader, writer))

    async with await asyncio.start_server(serve, "127.0.0.2", 443, ssl=context) as server:
        await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
