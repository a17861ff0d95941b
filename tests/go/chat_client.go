// A client of the chat with gorilla/websocket: chat_client URL ORIGIN. It prints each message that
// it hears as `username: message`, and says each line that it reads as Grace.
package main

import (
	"bufio"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/gorilla/websocket"
)

type Message struct {
	Email    string `json:"email"`
	Username string `json:"username"`
	Message  string `json:"message"`
}

func hear(connection *websocket.Conn, over chan<- error) {
	for {
		var message Message
		if err := connection.ReadJSON(&message); err != nil {
			over <- err
			return
		}
		fmt.Printf("%s: %s\n", message.Username, message.Message)
	}
}

func main() {
	url, origin := os.Args[1], os.Args[2]
	header := http.Header{"Origin": {origin}}
	connection, _, err := websocket.DefaultDialer.Dial(url, header)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	fmt.Println("connected")

	over := make(chan error, 1)
	go hear(connection, over)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := connection.WriteJSON(Message{"grace@example.org", "Grace", lines.Text()}); err != nil {
			log.Fatal(err)
		}
	}
	farewell := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	connection.WriteControl(websocket.CloseMessage, farewell, time.Now().Add(5*time.Second))
	fmt.Println(<-over)
}
