// The tutorial's chat with gorilla/websocket, in our own words: a map of clients, a channel, and a
// goroutine that sends to all what the channel brings. Unlike the tutorial's, the map has a lock.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
)

type Message struct {
	Email    string `json:"email"`
	Username string `json:"username"`
	Message  string `json:"message"`
}

var (
	clients   = make(map[*websocket.Conn]bool)
	lock      sync.Mutex
	broadcast = make(chan Message)
	upgrader  = websocket.Upgrader{}
)

func handleConnections(w http.ResponseWriter, r *http.Request) {
	connection, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		log.Print(err)
		return
	}
	defer connection.Close()
	lock.Lock()
	clients[connection] = true
	lock.Unlock()
	for {
		var message Message
		if err := connection.ReadJSON(&message); err != nil {
			log.Print(err)
			lock.Lock()
			delete(clients, connection)
			lock.Unlock()
			return
		}
		broadcast <- message
	}
}

func handleMessages() {
	for message := range broadcast {
		lock.Lock()
		for client := range clients {
			if err := client.WriteJSON(message); err != nil {
				log.Print(err)
				client.Close()
				delete(clients, client)
			}
		}
		lock.Unlock()
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("It runs at http://%s\n", listener.Addr())
	http.HandleFunc("/ws", handleConnections)
	go handleMessages()
	log.Fatal(http.Serve(listener, nil))
}
