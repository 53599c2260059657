// Command pause waits until it is told to end, and collects every child that is given to it. It is the first process of a
// test node, and the container that holds a pod's namespaces.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		reap()
	}
}

// reap collects all children that have ended: several ends may arrive as one signal.
func reap() {
	for {
		id, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if id <= 0 && err != syscall.EINTR {
			return
		}
	}
}
