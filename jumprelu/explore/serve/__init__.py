"""The live model of the page: an HTTP server on this computer (`--serve`).

programs.py   compiled passes that return only small results
live.py       a release and its language model: texts in, plain values out
plain.py      results as plain values
steering.py   edits of latents
fields.py     the fields of requests, and their limits
worker.py     the thread that compiles and then runs a single job at a time
guard.py      Host, Origin and the headers of responses
app.py        the addresses of the page and of the live model
server.py     the socket, signals and the end
"""
