// The echo server of the x/net/websocket example, in our own words: it answers the first message
// of each client in brackets, and refuses a client that names no origin.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"

	"golang.org/x/net/websocket"
)

func echo(connection *websocket.Conn) {
	message := make([]byte, 512)
	size, err := connection.Read(message)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Receive: %s\n", message[:size])

	size, err = connection.Write([]byte("[" + string(message[:size]) + "]"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Send: %d bytes\n", size)
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("It runs at http://%s\n", listener.Addr())
	http.Handle("/echo", websocket.Handler(echo))
	log.Fatal(http.Serve(listener, nil))
}
