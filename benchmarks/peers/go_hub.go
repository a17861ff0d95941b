// The hub, which gorilla/websocket's documentation recommends for a chat: one goroutine owns the
// set of clients, each client has a goroutine that writes and a channel that buffers; a client
// whose channel is full is dropped. Each message is framed once for all (PreparedMessage).
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

const (
	buffered  = 512 // messages; the benchmark has no more in flight, so no client is dropped
	writeWait = 10 * time.Second
	pongWait  = 60 * time.Second
	pingEvery = pongWait * 9 / 10
)

type Message struct {
	Email    string `json:"email"`
	Username string `json:"username"`
	Message  string `json:"message"`
}

type client struct {
	connection *websocket.Conn
	outgoing   chan *websocket.PreparedMessage
}

var (
	joining   = make(chan *client)
	leaving   = make(chan *client)
	broadcast = make(chan Message)
	upgrader  = websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
)

func hub() {
	clients := map[*client]bool{}
	drop := func(c *client) {
		if clients[c] {
			delete(clients, c)
			close(c.outgoing)
		}
	}
	for {
		select {
		case c := <-joining:
			clients[c] = true
		case c := <-leaving:
			drop(c)
		case message := <-broadcast:
			encoded, err := json.Marshal(message)
			if err != nil {
				continue
			}
			prepared, err := websocket.NewPreparedMessage(websocket.TextMessage, encoded)
			if err != nil {
				continue
			}
			for c := range clients {
				select {
				case c.outgoing <- prepared:
				default:
					drop(c)
				}
			}
		}
	}
}

func (c *client) write() {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	defer c.connection.Close()
	for {
		select {
		case prepared, open := <-c.outgoing:
			c.connection.SetWriteDeadline(time.Now().Add(writeWait))
			if !open {
				c.connection.WriteMessage(websocket.CloseMessage, nil)
				return
			}
			if c.connection.WritePreparedMessage(prepared) != nil {
				return
			}
		case <-ticker.C:
			c.connection.SetWriteDeadline(time.Now().Add(writeWait))
			if c.connection.WriteMessage(websocket.PingMessage, nil) != nil {
				return
			}
		}
	}
}

func (c *client) read() {
	defer func() {
		leaving <- c
		c.connection.Close()
	}()
	c.connection.SetReadDeadline(time.Now().Add(pongWait))
	c.connection.SetPongHandler(func(string) error {
		return c.connection.SetReadDeadline(time.Now().Add(pongWait))
	})
	for {
		var message Message
		if err := c.connection.ReadJSON(&message); err != nil {
			return
		}
		broadcast <- message
	}
}

func serve(w http.ResponseWriter, r *http.Request) {
	connection, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	c := &client{connection, make(chan *websocket.PreparedMessage, buffered)}
	joining <- c
	go c.write()
	c.read()
}

func main() {
	http.HandleFunc("/ws", serve)
	go hub()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Listening on http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, nil))
}
