# Connects the device at a serial port to the relay as client D: serial.sh PORT
# The path that socat binds gives the id, so the device sends and receives frames only, from the first byte.
rm -f D
exec socat "$1",raw,echo=0,b115200 UNIX-CONNECT:server_socket,bind=D
