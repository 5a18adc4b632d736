"""Traffic instruments: numbered datagrams, TCP streams that must survive, and a picture of what arrived when.

`session` starts and stops them from Python; `udpflow` and `tcpstream` are the processes that do the work.
"""
