# Client libraries side by side: what a Python program gets through a bus, two processes and its server.
#   __main__    the command: servers, processes, one table
#   _roles      what the processes do, whatever the library: flood, echo, spread; checks what arrives
#   _libraries  each library as a `Bus`: how it connects, sends and receives
#   _process    one process of a measurement: python -m benchmarks.clients._process LIBRARY ROLE ADDRESS ...
#   _router     the ROUTER process of pyzmq
