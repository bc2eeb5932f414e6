"""The routes: each API's own form of request and answer."""
