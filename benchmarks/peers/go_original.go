// The shape of the Simple Chat with which many learn WebSocket in Go: a map of clients, a channel,
// and one goroutine that sends each message to each client. Its faults belong to the shape and stay:
// nothing guards the map, which the handlers and the broadcaster share, so Go's runtime may end it
// at any time ("fatal error: concurrent map writes"), and a bad handshake ends it at once.
// docs/from-go-to-python.md shows them.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"

	"github.com/gorilla/websocket"
)

type Message struct {
	Email    string `json:"email"`
	Username string `json:"username"`
	Message  string `json:"message"`
}

var (
	clients   = map[*websocket.Conn]bool{}
	broadcast = make(chan Message)
	upgrader  = websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
)

func handleConnections(w http.ResponseWriter, r *http.Request) {
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ws.Close()
	clients[ws] = true
	for {
		var message Message
		if err := ws.ReadJSON(&message); err != nil {
			delete(clients, ws)
			return
		}
		broadcast <- message
	}
}

func handleMessages() {
	for message := range broadcast {
		for client := range clients {
			if err := client.WriteJSON(message); err != nil {
				client.Close()
				delete(clients, client)
			}
		}
	}
}

func main() {
	http.HandleFunc("/ws", handleConnections)
	go handleMessages()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Listening on http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, nil))
}
