// The client of the x/net/websocket example, in our own words: echo_client URL ORIGIN.
package main

import (
	"fmt"
	"log"
	"os"

	"golang.org/x/net/websocket"
)

func main() {
	url, origin := os.Args[1], os.Args[2]
	connection, err := websocket.Dial(url, "", origin)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()

	message := []byte("hello, world!你好")
	if _, err := connection.Write(message); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Send: %s\n", message)

	answer := make([]byte, 512)
	size, err := connection.Read(answer)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Receive: %s\n", answer[:size])
}
